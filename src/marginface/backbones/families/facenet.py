"""facenet-pytorch's Inception-ResNet v1, with or without the classifier it was trained with."""

from typing import Any

from marginface.backbones.families._family import Family, State


def _settings(state: State) -> dict[str, Any] | None:
    if "last_linear.weight" not in state:
        return None
    width = state["last_linear.weight"].shape[0]
    return {"name": "inception_resnet_v1", "embedding_size": width, "image_size": 160}


FACENET = Family(
    "facenet",
    "conv2d_1a.conv.weight",
    _settings,
    std=(128.0, 128.0, 128.0),
    dropout=0.6,
    beside=("logits.",),
    warning=(
        "facenet-pytorch's networks were trained on boxes of MTCNN with a margin, not on faces "
        "that are warped onto the template"
    ),
)
