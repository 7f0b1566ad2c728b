"""Vision transformers with flattened tokens: insightface's (and LVFace's), CVLface's, KP-RPE."""

from typing import Any

from marginface.backbones.families._family import Family, State, counted

_ANCHOR = "feature.0.weight"
_HEADS_OF_CVLFACE = {24: 16, 12: 8}  # by depth: base, small
_IMAGE = 112


def _settings(state: State, heads: int) -> dict[str, Any]:
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    return {
        "name": "flat_vit",
        "embedding_size": state["feature.2.weight"].shape[0],
        "image_size": _IMAGE,
        "model": {
            "patch_size": patch,
            "embed_dim": width,
            "depth": counted(state, "blocks.{n}.norm1.weight"),
            "num_heads": heads,
            "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
            "mask_token": "mask_token" in state,
            "keypoints": "keypoint_linear.weight" in state,
        },
    }


def _is_flat_vit(state: State) -> bool:
    needed = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "feature.2.weight")
    return all(name in state for name in needed)


def _insightface(state: State) -> dict[str, Any] | None:
    if not _is_flat_vit(state) or "mask_token" not in state:
        return None
    return _settings(state, heads=8)


def _cvlface(state: State) -> dict[str, Any] | None:
    if not _is_flat_vit(state) or "mask_token" in state:
        return None
    depth = counted(state, "blocks.{n}.norm1.weight")
    if depth not in _HEADS_OF_CVLFACE:
        return None  # the number of heads is in no tensor
    return _settings(state, _HEADS_OF_CVLFACE[depth])


INSIGHTFACE_VIT = Family("insightface", _ANCHOR, _insightface, nested=("state_dict_backbone",))
CVLFACE_VIT = Family("cvlface", _ANCHOR, _cvlface)
