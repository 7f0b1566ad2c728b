"""timm-face: timm's own networks, whose classifier is the embedding."""

from typing import Any

from marginface.backbones.families._family import Family, State

_IMAGE = 112
_VITS = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}
_CONVNEXTS = {40: "convnext_atto", 48: "convnext_femto", 64: "convnext_pico", 80: "convnext_nano",
              96: "convnext_tiny"}  # fmt: skip


def _vit(state: State) -> dict[str, Any] | None:
    needed = ("head.weight", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.bias")
    if not all(name in state for name in needed):
        return None
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    if width not in _VITS:
        return None  # the number of heads is in no tensor
    has_token = "cls_token" in state
    tokens = state["pos_embed"].shape[1] - has_token
    return {
        "name": _VITS[width],
        "embedding_size": state["head.weight"].shape[0],
        "image_size": patch * round(tokens**0.5),
        "pool": "classifier",
        "model": {
            "patch_size": patch,
            "class_token": has_token,
            "global_pool": "token" if has_token else "avg",
            "patch_drop_rate": 0.0 if has_token else 0.1,
        },
    }


def _convnext(state: State) -> dict[str, Any] | None:
    stem = state["stem.0.weight"]
    if "head.fc.weight" not in state or stem.shape[0] not in _CONVNEXTS:
        return None
    return {
        "name": _CONVNEXTS[stem.shape[0]],
        "embedding_size": state["head.fc.weight"].shape[0],
        "image_size": _IMAGE,
        "pool": "classifier",
        "model": {"patch_size": stem.shape[-1]},
    }


TIMM_FACE_VIT = Family("timm-face", "patch_embed.proj.weight", _vit, nested=("ema", "model"))
TIMM_FACE_CONVNEXT = Family("timm-face", "stem.0.weight", _convnext, nested=("ema", "model"))
