"""Thresholds for false match rates, with what is known about them, as models carry them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from marginface.metrics.operating_points import RULE_OF_30
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

# Rates that models carry thresholds for: 1, 2 and 5 in each decade, for others to lie between.
FMRS = tuple(mantissa * 10.0**exponent for exponent in range(-1, -8, -1) for mantissa in (5, 2, 1))


@dataclass(frozen=True)
class Threshold:
    """A cosine from which on two faces count as one person, and how it was found.

    Attributes:
        fmr: false match rate it is for.
        cosine: accept scores >= it.
        low, high: 95 % interval of that cosine.
        false_matches: impostor pairs accepted.
        impostors: impostor pairs in all.
        set: name of the images.
        flip: whether the embedding of the mirror image was added.
        precision: of the network.
        fmr_low, fmr_high: 95 % interval of the false match rate at that cosine, where known.
    """

    fmr: float
    cosine: float
    low: float
    high: float
    false_matches: int
    impostors: int
    set: str
    flip: bool
    precision: str
    fmr_low: float | None = None
    fmr_high: float | None = None

    @property
    def supported(self) -> bool:
        """Whether so many impostor pairs tell this rate: 30 false matches are expected."""
        return self.fmr * self.impostors >= RULE_OF_30 * (1 - 1e-9)


def threshold_for(
    known: Sequence[Threshold], fmr: float, *, flip: bool, int8: bool = False
) -> Threshold:
    """The threshold for a false match rate, from the set with the most impostor pairs.

    Between two rates that are known the cosine is interpolated over the logarithm of the rate.

    Args:
        known: thresholds of a model.
        fmr: wanted, in (0, 1).
        flip, int8: how images are embedded now: thresholds of other embeddings do not hold.

    Raises:
        InputError: a rate that is none, or no threshold of such embeddings.
    """
    if not 0 < fmr < 1:
        raise InputError(f"a false match rate is between 0 and 1, got {fmr}")
    fitting = [t for t in known if t.flip == flip and (t.precision == "int8") == int8]
    if not fitting:
        raise InputError(_none_fits(known, flip, int8))
    most = max(t.impostors for t in fitting)
    of_set = next(t.set for t in fitting if t.impostors == most)
    points = sorted((t for t in fitting if t.set == of_set), key=lambda t: t.fmr)
    exact = next((t for t in points if math.isclose(t.fmr, fmr, rel_tol=1e-6)), None)
    if exact is not None:
        return exact
    below, above = (
        [t for t in points if t.fmr < fmr], [t for t in points if t.fmr > fmr]
    )  # fmt: skip
    if not below or not above:
        raise InputError(
            f"there are thresholds for false match rates from {rate_name(points[0].fmr)} to "
            f"{rate_name(points[-1].fmr)} on {of_set}, not for {rate_name(fmr)}"
        )
    return _between(below[-1], above[0], fmr)


def lowest_supported(known: Sequence[Threshold], like: Threshold) -> float | None:
    """The lowest rate that the set of a threshold supports by the rule of 30."""
    rates = [
        t.fmr
        for t in known
        if t.supported and (t.set, t.flip, t.precision) == (like.set, like.flip, like.precision)
    ]
    return min(rates, default=None)


def _between(low: Threshold, high: Threshold, fmr: float) -> Threshold:
    share = (math.log(fmr) - math.log(low.fmr)) / (math.log(high.fmr) - math.log(low.fmr))

    def between(one: float, other: float) -> float:
        return one + share * (other - one)

    def where_known(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else between(one, other)

    return replace(
        low,
        fmr=fmr,
        cosine=between(low.cosine, high.cosine),
        low=between(low.low, high.low),
        high=between(low.high, high.high),
        fmr_low=where_known(low.fmr_low, high.fmr_low),
        fmr_high=where_known(low.fmr_high, high.fmr_high),
        false_matches=round(between(low.false_matches, high.false_matches)),
    )


def _none_fits(known: Sequence[Threshold], flip: bool, int8: bool) -> str:
    if not known:
        return "the model has no thresholds"
    words = {(t.flip, t.precision == "int8") for t in known}
    have = ", ".join(sorted(_kind(*word) for word in words))
    return (
        f"the model has thresholds {have}, and images are embedded {_kind(flip, int8)}: "
        "a threshold of one is not that of the other"
    )


def _kind(flip: bool, int8: bool) -> str:
    return f"{'with' if flip else 'without'} flip{' in int8' if int8 else ''}"
