"""What a model takes over from an evaluation: thresholds, and the norm of bad photographs."""

import json
from pathlib import Path
from typing import Any

from marginface.inference.model_file import ModelFile
from marginface.metrics.thresholds import Threshold
from marginface.utils.errors import InputError, MissingInputError


def read_evaluation(folder: Path, model: ModelFile) -> dict[str, Any]:
    """Fields of a `Description`: thresholds, and the norm below which 1 % of embeddings are.

    Raises:
        MissingInputError: no evaluation there.
        InputError: one of another network.
    """
    path = folder / "thresholds.json"
    if not path.is_file():
        raise MissingInputError(
            f"no {path}; give the folder of an evaluation (evaluate.py prints where its report is)"
        )
    try:
        content = json.loads(path.read_text())
        thresholds = tuple(Threshold(**entry) for entry in content["thresholds"])
        of_digest, of_file = content["digest"], content["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold the thresholds of an evaluation; those of a training run are "
            "used without this option"
        ) from error
    own = model.description.digest
    if of_file != model.fingerprint() and not (own and own == of_digest):
        raise InputError(
            f"{folder} is the evaluation of another network (file {of_file[:12]}..., this is "
            f"{model.fingerprint()[:12]}...); evaluate {model.path}"
        )
    return {
        "thresholds": thresholds,
        "min_norm": content.get("min_norm"),
        "min_norm_flip": bool(content.get("flip", True)),
    }
