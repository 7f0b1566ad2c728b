"""Networks that other projects published, read from their files without being told what they are.

One small file per family says how its files are recognized, and what images it takes: colors,
scaling and epsilons are in no tensor, so a file that merely fits would be loaded wrongly.
"""

from marginface.backbones.families._family import About, Family
from marginface.backbones.families.edgeface import EDGEFACE
from marginface.backbones.families.facenet import FACENET
from marginface.backbones.families.flat_vit import CVLFACE_VIT, INSIGHTFACE_VIT
from marginface.backbones.families.ir import ADAFACE, CURRICULARFACE, CVLFACE_IR, EVOLVE
from marginface.backbones.families.iresnet import CVLFACE_IRESNET, INSIGHTFACE, MAGFACE
from marginface.backbones.families.mbf import MBF
from marginface.backbones.families.timm_face import TIMM_FACE_CONVNEXT, TIMM_FACE_VIT

FAMILIES: tuple[Family, ...] = (
    INSIGHTFACE, MAGFACE, CVLFACE_IRESNET, ADAFACE, CVLFACE_IR, EVOLVE, CURRICULARFACE,
    INSIGHTFACE_VIT, CVLFACE_VIT, MBF, FACENET, EDGEFACE, TIMM_FACE_VIT, TIMM_FACE_CONVNEXT,
)  # fmt: skip

__all__ = ["FAMILIES", "INSIGHTFACE", "About", "Family"]
