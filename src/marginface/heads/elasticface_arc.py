"""Boutros et al., "ElasticFace: Elastic Margin Loss", arXiv 2109.09416, 2022."""

from torch import Tensor

from marginface.heads._elastic import Compat, ElasticMargin
from marginface.heads._functional import add_angle
from marginface.heads._margin import MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import NotNegative


@register_head("elasticface_arc")
class ElasticFaceArc(ElasticMargin):
    """f = cos(theta + m), m drawn from N(margin, sigma^2) for each image.

    Defaults are the official code's; ElasticFace-Arc+ is plus=true sigma=0.0175.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        sigma: NotNegative = 0.05,
        plus: bool = False,
        compat: Compat = "paper",
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(
            scale, margin_gradient, margin=margin, sigma=sigma, plus=plus, compat=compat
        )

    def curve(self, cosine: Tensor, margin: float | Tensor | None = None) -> Tensor:
        return add_angle(cosine, self.margin if margin is None else margin)
