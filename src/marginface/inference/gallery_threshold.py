"""The threshold of a search for a wanted false positive identification rate.

A gallery calibrates itself: each person enrolled is a stranger to all others. Where it is too
small for that, the threshold of the model for two photographs is taken, at the false match rate
that makes one false name among N people as rare as is wanted.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from marginface.inference.gallery_memory import GalleryMemory
from marginface.inference.model import Model
from marginface.metrics.identification import search
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

_FEWEST = 2  # false names that are expected among the people enrolled
_MOST = 4_000  # images that are searched for that


@dataclass(frozen=True)
class SearchThreshold:
    """A threshold of a search.

    Attributes:
        cosine: somebody is found from it on.
        fpir: false positive identification rate it is for; None where it was given.
        source: "gallery", "model" or "given".
        people: enrolled.
    """

    cosine: float
    fpir: float | None
    source: Literal["gallery", "model", "given"]
    people: int

    def __str__(self) -> str:
        words = {
            "gallery": f"from the {self.people} people of the gallery themselves",
            "model": f"from the model, for {self.people} people",
            "given": "given",
        }
        rate = "" if self.fpir is None else f"FPIR {rate_name(self.fpir)}, "
        return f"threshold {self.cosine:.3f} ({rate}{words[self.source]})"


def search_threshold(memory: GalleryMemory, model: Model, fpir: float) -> SearchThreshold:
    """The threshold for a rate, from the gallery where it is large enough, else from the model.

    Raises:
        InputError: a rate that is none, or that neither of them supports.
    """
    if not 0 < fpir < 1:
        raise InputError(f"a false positive identification rate is between 0 and 1, got {fpir}")
    people = len(memory.names)
    if fpir * people >= _FEWEST - 1e-9:
        return SearchThreshold(threshold_of(strangers(memory), fpir), fpir, "gallery", people)
    fmr = 1 - (1 - fpir) ** (1 / people)
    needed = rate_name(float(f"{fmr:.1e}"))
    too_small = (
        f"FPIR {rate_name(fpir)} needs {int(np.ceil(_FEWEST / fpir))} people to be calibrated by "
        f"the gallery, which has {people}"
    )
    try:
        found = model.threshold(fmr)
    except InputError as error:
        raise InputError(
            f"{too_small}; and of the model's thresholds (FMR {needed} is needed): {error}"
        ) from error
    if not found.supported:
        raise InputError(
            f"{too_small}; and the model's thresholds do not know FMR {needed}, which is "
            f"needed then: {model.caution(found)}. Enroll more people, ask for a higher "
            "rate (--fpir), or give a cosine (--threshold)"
        )
    return SearchThreshold(found.cosine, fpir, "model", people)


def strangers(memory: GalleryMemory) -> Tensor:
    """Best score of an image among all people but its own, of up to 4,000 images.

    Each image is a probe as it is, and others are templates, as in a search; of more images the
    first of each person comes first.
    """
    order = _people_in_turn(memory.owner)[:_MOST]
    probes = memory.vectors[torch.from_numpy(order)]
    scores, places = search(probes, memory.templates, min(2, len(memory.names)))
    own = torch.from_numpy(memory.owner[order])[:, None]
    return scores.masked_fill(places == own, -2.0).amax(1)


def threshold_of(best: Tensor, fpir: float) -> float:
    """The lowest threshold that at most this share of the scores reach."""
    allowed = int(np.floor(fpir * len(best) + 1e-9))
    one_too_many = best.sort(descending=True).values[min(allowed, len(best) - 1)]
    return float(torch.nextafter(one_too_many, one_too_many.new_tensor(torch.inf)))


def _people_in_turn(owner: np.ndarray) -> np.ndarray:
    """Places of images: one of each person, drawn at random, then another one of each, ..."""
    shuffled = np.random.default_rng(0).permutation(len(owner))
    whose = owner[shuffled]
    order = np.argsort(whose, kind="stable")
    starts = np.searchsorted(whose[order], whose[order])
    turn = np.empty(len(owner), np.int64)
    turn[order] = np.arange(len(owner)) - starts
    return shuffled[np.argsort(turn, kind="stable")]
