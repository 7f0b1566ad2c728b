"""What makes the numbers of an evaluation mislead, known from embeddings and scores."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from marginface.metrics.operating_points import RULE_OF_30
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

_SAME_DIRECTION = 1 - 1e-5  # cosine, within what bfloat16 and other sums change


def embedding_cautions(embeddings: Tensor) -> list[str]:
    """A sentence when embeddings cannot tell anyone apart.

    Raises:
        InputError: embeddings of one number, whose cosines are 1 or -1.
    """
    if embeddings.shape[1] == 1:
        raise InputError(
            "the network gives one number an image, which is no embedding; take the layer before"
        )
    known = embeddings[torch.isfinite(embeddings).all(1)]
    if len(known) < 2:
        return []
    directions = normalize(known, dim=1)
    least = float((directions @ directions[0]).min())
    largest = float(known.abs().max())
    if least < _SAME_DIRECTION and largest > 0:
        return []
    how = f"cosines of {least:.6f} and more" if largest > 0 else "all zero"
    return [
        f"all {len(known)} embeddings are equal ({how}): the network "
        "cannot tell these images apart. Its weights, or the color, size and scaling of the "
        "images, are not what it was trained with"
    ]


def rate_caution(what: str, rates: Sequence[float], impostors: int) -> list[str]:
    """A sentence on rates whose thresholds rest on fewer than 30 false matches.

    Args:
        what: is reported at them: "tar@far".
        rates: false match rates.
        impostors: pairs or searches that can match falsely.
    """
    few = {rate_name(rate): rate * impostors for rate in rates if rate * impostors < RULE_OF_30}
    if not few:
        return []
    counts = ", ".join(f"{expected:.3g} at {name}" for name, expected in few.items())
    return [
        f"{what} rests on fewer than {RULE_OF_30} false matches of {impostors:,} possible ones: "
        f"{counts}. By the rule of 30 such thresholds and rates are guesses"
    ]
