"""facenet-pytorch's Inception-ResNet v1, with or without the classifier it was trained with."""

from torch import nn

from marginface.backbones.families._family import Family, State
from marginface.backbones.inception_resnet import InceptionResnetV1


def _network(state: State) -> nn.Module | None:
    if "last_linear.weight" not in state:
        return None
    return InceptionResnetV1(state["last_linear.weight"].shape[0])


FACENET = Family(
    "facenet",
    "conv2d_1a.conv.weight",
    _network,
    std=(128.0, 128.0, 128.0),
    image_size=160,
    beside=("logits.",),
    warning=(
        "facenet-pytorch's networks were trained on boxes of MTCNN with a margin, not on faces "
        "that are warped onto the template"
    ),
)
