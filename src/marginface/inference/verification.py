"""The answer to whether two faces are one person."""

from dataclasses import dataclass

from marginface.metrics.verification import rate_name


@dataclass(frozen=True)
class Verification:
    """Whether two faces are one person.

    Attributes:
        same: whether the cosine reaches the threshold.
        cosine: of the two embeddings.
        threshold: that it is compared with.
        fmr: false match rate the threshold is for; None where the threshold was given.
        low, high: 95 % interval of that rate.
        set: images it was measured on.
        false_matches, impostors: of these.
        caution: why the threshold is uncertain, in words.
    """

    same: bool
    cosine: float
    threshold: float
    fmr: float | None = None
    low: float | None = None
    high: float | None = None
    set: str | None = None
    false_matches: int | None = None
    impostors: int | None = None
    caution: str | None = None

    def __str__(self) -> str:
        word = "same" if self.same else "different"
        line = f"{word}: cosine {self.cosine:.3f}, threshold {self.threshold:.3f}"
        if self.fmr is None:
            return f"{line} (given)"
        known = "" if self.low is None else f"95 % {self.low:.1e} to {self.high:.1e}, "
        return (
            f"{line} (FMR {rate_name(self.fmr)}, {known}on {self.set}, {self.false_matches} false "
            "matches)"
        )
