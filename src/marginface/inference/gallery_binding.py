"""Binds a gallery to the model it was made with: vectors of others mean something else."""

from pathlib import Path

from marginface.inference.model import Model
from marginface.utils.errors import InputError


def bound_to(model: Model) -> dict[str, str]:
    """What of a model its embeddings depend on."""
    detector = model.photos.detector
    return {
        "digest": model.digest,
        "flip": str(model.flip).lower(),
        "int8": str(model.description.precision == "int8").lower(),
        "embedding_size": str(model.embedding_size),
        "input": model.description.input.model_dump_json(),
        # For people; a model may be computed otherwise, and faces be found otherwise.
        "precision": model.description.precision,
        "detector": detector if isinstance(detector, str) else getattr(detector, "__name__", "own"),
    }


def check_bound(path: Path, made_by: dict[str, str], now: dict[str, str]) -> None:
    """InputError unless both are those of one model."""
    again = f"enroll again with `marginface gallery rebuild {path} MODEL PHOTOS`"
    if made_by.get("digest") != now["digest"]:
        raise InputError(
            f"{path} was made by sha256:{made_by.get('digest', '?')[:12]}, this model is "
            f"sha256:{now['digest'][:12]}; {again}"
        )
    for key, words in {
        "flip": ("with the mirror image added", "without the mirror image"),
        "int8": ("in int8", "not in int8"),
    }.items():
        if made_by.get(key) != now[key]:
            was, is_now = words if made_by.get(key) == "true" else words[::-1]
            raise InputError(f"{path} was made {was}, this model embeds {is_now}; {again}")
    for key in ("embedding_size", "input"):
        if made_by.get(key) != now[key]:
            raise InputError(f"{path} was made with another {key} of the model; {again}")
