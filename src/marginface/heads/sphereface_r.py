"""Liu et al., "SphereFace Revived", arXiv 2109.05565, 2021."""

from torch import Tensor

from marginface.heads._functional import multiply_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import AtLeastOne


@register_head("sphereface_r")
class SphereFaceR(Margin):
    """SphereFace with normalized embeddings: f = psi(theta), cos(m theta) made monotone.

    Defaults and gradient (there "characteristic gradient detachment") are OpenSphere's, which
    also normalizes the stored centers in place at every step; here they are normalized in use.
    """

    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 30.0,
        m: AtLeastOne = 1.7,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.m = m

    def curve(self, cosine: Tensor) -> Tensor:
        return multiply_angle(cosine, self.m)
