"""Whether an exported graph computes what the network does."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marginface.metrics.operating_points import RULE_OF_30
from marginface.metrics.threshold_estimates import threshold_at
from marginface.metrics.verification import rate_name

Floats = NDArray[np.float32]
Embed = Callable[[NDArray[np.uint8]], Floats]  # uint8 (B, S, S, 3) RGB to (B, D)
Precision = Literal["fp32", "fp16", "int8"]
BATCHES = (1, 2, 7, 32)
_FMRS = (1e-3, 1e-2, 1e-1)  # the first of these that the faces support is compared at


@dataclass(frozen=True)
class Rates:
    """Decisions on faces with identities, at the threshold of the network.

    Attributes:
        fmr: false match rate the threshold is for.
        fmr_before, fmr_after: of network and graph at that threshold.
        tmr_before, tmr_after: true match rates likewise.
        impostors, genuine: pairs.
    """

    fmr: float
    fmr_before: float
    fmr_after: float
    tmr_before: float
    tmr_after: float
    impostors: int
    genuine: int


@dataclass(frozen=True)
class Check:
    """What was measured.

    Attributes:
        images: how many, and of what.
        max_difference: largest difference of a coordinate of unit embeddings.
        min_cosine, mean_cosine: between embeddings of network and graph.
        rates: None where the faces name no people.
    """

    images: str
    max_difference: float
    min_cosine: float
    mean_cosine: float
    rates: Rates | None = None

    def problems(self, precision: Precision) -> list[str]:
        """Why it must not be used, in words with the numbers; empty when nothing is wrong."""
        found = []
        least, measured, name = {
            "fp32": (1 - 1e-6, self.min_cosine, "smallest"),
            "fp16": (0.9995, self.min_cosine, "smallest"),
            "int8": (0.98, self.mean_cosine, "mean"),
        }[precision]
        if not measured >= least:
            found.append(
                f"the {name} cosine to the network is {measured:.7g}, {least:.7g} is needed"
            )
        if self.rates is not None and precision != "fp32":
            r = self.rates
            most = 1.5 * max(r.fmr_before, RULE_OF_30 / r.impostors)
            if r.fmr_after > most:
                found.append(
                    f"the false match rate at its threshold rises from {r.fmr_before:.2e} to "
                    f"{r.fmr_after:.2e}, {most:.2e} is allowed"
                )
            if r.tmr_after < r.tmr_before - 0.01:
                found.append(
                    f"the true match rate falls from {r.tmr_before:.3f} to {r.tmr_after:.3f}, "
                    "0.01 is allowed"
                )
        return found

    def words(self) -> str:
        """All of it in a line."""
        line = (
            f"max difference {self.max_difference:.1e}, cosine min {self.min_cosine:.7f} mean "
            f"{self.mean_cosine:.7f} on {self.images}"
        )
        if self.rates is not None:
            r = self.rates
            line += (
                f"; at the threshold for FMR {rate_name(r.fmr)}: FMR {r.fmr_before:.2e} before and "
                f"{r.fmr_after:.2e} after, TMR {r.tmr_before:.4f} and {r.tmr_after:.4f}"
            )
        return line

    def facts(self) -> dict[str, Any]:
        """For the metadata."""
        return asdict(self)


def check_graph(
    network: Embed,
    graph: Embed,
    images: NDArray[np.uint8],
    people: NDArray[np.int64] | None,
    what: str,
) -> Check:
    """Compare on batches of 1, 2, 7 and 32, then on all images.

    Args:
        network, graph: what is compared.
        images: (N, S, S, 3), N at least 32.
        people: (N,) who they show, where that is known.
        what: the images, for the text.
    """
    pairs = []
    for size in BATCHES:
        part = images[:size]
        pairs.append((network(part), graph(part)))
    # The rest in batches of the last size, which is what both are used with.
    rest = range(BATCHES[-1], len(images), BATCHES[-1])
    whole = [pairs[-1]] + [
        (network(images[at : at + BATCHES[-1]]), graph(images[at : at + BATCHES[-1]]))
        for at in rest
    ]
    expected = _unit(np.concatenate([one for one, _ in whole]))
    found = _unit(np.concatenate([other for _, other in whole]))
    differences, cosines = [], []
    units = [(_unit(one), _unit(other)) for one, other in pairs[:-1]]
    for a, b in [*units, (expected, found)]:
        differences.append(float(np.abs(a - b).max()))
        cosines.append((a * b).sum(1))
    rates = None if people is None else _rates(expected, found, people)
    return Check(
        f"{len(images)} {what}, batches of {', '.join(map(str, BATCHES))}",
        max(differences) if np.isfinite(differences).all() else float("nan"),
        float(np.concatenate(cosines).min()),
        float(cosines[-1].mean()),
        rates,
    )


def _unit(embeddings: Floats) -> NDArray[np.float64]:
    exact = embeddings.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)


def _rates(
    before: NDArray[np.float64], after: NDArray[np.float64], people: NDArray[np.int64]
) -> Rates | None:
    row, column = np.triu_indices(len(people), 1)
    same = people[row] == people[column]
    if not same.any() or same.all():
        return None
    impostors = int((~same).sum())
    fmr = next((f for f in _FMRS if f * impostors >= RULE_OF_30), None)
    if fmr is None:
        return None
    old, new = ((side @ side.T)[row, column] for side in (before, after))
    threshold = threshold_at(-np.sort(-old[~same]), fmr * impostors)

    def share(scores: NDArray[np.float64]) -> float:
        return float((scores >= threshold).mean())

    return Rates(
        fmr,
        share(old[~same]),
        share(new[~same]),
        share(old[same]),
        share(new[same]),
        impostors,
        int(same.sum()),
    )
