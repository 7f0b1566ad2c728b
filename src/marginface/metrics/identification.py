"""Identification 1:N: closed-set ranks, open-set TPIR at FPIR, distractors, top-k search."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from marginface.metrics.scores import check_finite, checked_rate
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

DEFAULT_RANKS = (1, 5, 10)
_PROBES, _GALLERY = 512, 1 << 13  # a block of scores of 16 MB
_FEW = 3  # probes


@dataclass(frozen=True)
class IdentificationResult:
    """Results of a search as fractions.

    Attributes:
        rank: share of mated probes found among the first k gallery entries, by k.
        tpir_at_fpir: share of mated probes found at rank 1 with a score above the threshold at
            which the given share of non-mated probes finds anybody (1 - FNIR), by FPIR.
        threshold: those thresholds: a search finds somebody at a score >= it.
        mated: probes whose subject is in the gallery; only they count for ranks.
        non_mated: probes of others.
        own: (mated,) best score of an entry of the own subject.
        other: (mated,) best score of an entry of another subject, -inf when there is none.
        position: (mated,) rank of the own subject; of equal scores the other comes first, so
            that a network that maps all to one point finds nobody. Exact up to the largest rank
            asked for, and one more than it beyond.
        best: (non_mated,) best score of all entries.
        is_mated: (P,) which probes are mated, to give the above their place.
    """

    rank: dict[int, float]
    tpir_at_fpir: dict[float, float]
    threshold: dict[float, float]
    mated: int
    non_mated: int
    own: Tensor = field(repr=False)
    other: Tensor = field(repr=False)
    position: Tensor = field(repr=False)
    best: Tensor = field(repr=False)
    is_mated: Tensor = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """The scalars under the names they are reported with."""
        ranks = {f"rank{k}": value for k, value in self.rank.items()}
        tpir = {f"tpir@{rate_name(f)}": value for f, value in self.tpir_at_fpir.items()}
        return ranks | tpir


def identification(
    gallery: Tensor,
    gallery_subjects: Tensor | NDArray[Any],
    probes: Tensor,
    probe_subjects: Tensor | NDArray[Any],
    ranks: Sequence[int] = DEFAULT_RANKS,
    fpirs: Sequence[float] = (),
) -> IdentificationResult:
    """Search every probe in a gallery, by cosine.

    Args:
        gallery: (G, D) embeddings or templates, normalized here; several entries may belong to
            one subject. Distractors are entries of a subject that no probe has.
        gallery_subjects: (G,) whole numbers or strings.
        probes: (P, D).
        probe_subjects: (P,) likewise.
        ranks: k of the closed-set identification rates, at least 1.
        fpirs: false positive identification rates in [0, 1] for an open-set search. Without any
            the set is closed and every probe's subject must be in the gallery.

    Raises:
        InputError: an empty gallery, lengths that do not fit, features that are not finite, in a
            closed set a probe of nobody in the gallery, in an open set no such probe or only such.
    """
    gallery = _features(gallery, "gallery")
    probes = F.normalize(_features(probes, "probes").to(gallery))
    if gallery.shape[1] != probes.shape[1]:
        raise InputError(
            f"gallery features are {gallery.shape[1]} wide and probe features {probes.shape[1]}"
        )
    entry, probe = _numbered(
        gallery_subjects, probe_subjects, (len(gallery), len(probes)), gallery.device
    )
    if not ranks or min(ranks) < 1:
        raise InputError(f"ranks must be whole numbers from 1, got {list(ranks)}")
    fpirs = [checked_rate(fpir) for fpir in fpirs]
    check_subjects(gallery_subjects, probe_subjects, is_open=bool(fpirs))
    is_mated = torch.isin(probe, entry)
    own, others = _search(gallery, entry, probes, probe, max(ranks))
    position = 1 + (others >= own[:, None]).sum(1)
    own, other, position = own[is_mated], others[is_mated, 0], position[is_mated]
    best = others[~is_mated, 0]
    result_rank = {k: float((position <= k).double().mean()) for k in ranks}
    threshold = {fpir: _threshold(best, fpir) for fpir in fpirs}
    found = {f: (own > other) & (own >= t) for f, t in threshold.items()}
    return IdentificationResult(
        rank=result_rank,
        tpir_at_fpir={f: float(hits.double().mean()) for f, hits in found.items()},
        threshold=threshold,
        mated=int(is_mated.sum()),
        non_mated=int((~is_mated).sum()),
        own=own.cpu(),
        other=other.cpu(),
        position=position.cpu(),
        best=best.cpu(),
        is_mated=is_mated.cpu(),
    )


def check_subjects(
    gallery: Tensor | NDArray[Any], probes: Tensor | NDArray[Any], *, is_open: bool
) -> None:
    """InputError unless the probes' subjects suit a closed or an open set, see `identification`."""
    known, searched = _array(gallery), _array(probes)
    absent = searched[~np.isin(searched, known)]
    if len(absent) == len(searched):
        raise InputError(f"none of the {len(searched)} probes shows anybody in the gallery")
    if len(absent) and not is_open:
        raise InputError(
            f"probe subject {absent[0]} is not in the gallery ({len(absent)} of {len(searched)} "
            "probes are of such subjects). In a closed set every probe must be; give fpirs, for "
            "instance [0.01, 0.1], to search an open set"
        )
    if is_open and not len(absent):
        raise InputError(
            "TPIR at FPIR needs probes of subjects that are not in the gallery, and there are "
            "none; leave fpirs empty for a closed set"
        )


def distractor_identification(
    features: Tensor,
    subjects: Tensor | NDArray[Any],
    distractors: Tensor,
    ranks: Sequence[int] = DEFAULT_RANKS,
) -> dict[int, float]:
    """MegaFace's identification rate: each image searched for each other one of its subject.

    For every ordered pair of images of one subject the gallery is the second image and all
    distractors; its rank is 1 + the distractors that score at least as high.

    Args:
        features: (N, D) of the probe set, some subjects with several images.
        subjects: (N,) whole numbers or strings.
        distractors: (M, D) of other people.
        ranks: k of the identification rates.

    Raises:
        InputError: no two images of a subject, no distractors, features that are not finite.
    """
    features = F.normalize(_features(features, "features"))
    distractors = F.normalize(_features(distractors, "distractors").to(features))
    number, _ = _numbered(subjects, subjects, (len(features),) * 2, features.device)
    scores = search(features, distractors, min(max(ranks), len(distractors)))[0]
    hits, pairs = dict.fromkeys(ranks, 0), 0
    for members in _members(number):
        if len(members) < 2:
            continue
        own = features[members] @ features[members].T
        own = own[~torch.eye(len(members), dtype=torch.bool, device=own.device)]
        own = own.view(len(members), -1)
        # Products of other shapes are rounded otherwise; what is equal but for that is a tie.
        rounding = 8 * torch.finfo(own.dtype).eps
        beaten = scores[members][:, None, :] >= own[:, :, None] - rounding  # (probe, mate, other)
        position = 1 + beaten.sum(2)
        pairs += position.numel()
        for k in ranks:
            hits[k] += int((position <= k).sum())
    if not pairs:
        raise InputError(f"none of the {len(features)} probes has another image of its subject")
    return {k: count / pairs for k, count in hits.items()}


def search(probes: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k gallery entries with the highest dot products, in blocks of bounded memory.

    Args:
        probes: (P, D) of unit length for cosines.
        gallery: (G, D) likewise.
        k: 1 to G.

    Returns:
        (P, k) scores, descending, and int64 gallery indices.

    Raises:
        InputError: another k.
    """
    if not 1 <= k <= len(gallery):
        raise InputError(f"k must be between 1 and the {len(gallery)} gallery entries, got {k}")
    scores = probes.new_full((len(probes), k), -torch.inf)
    indices = torch.zeros(len(probes), k, dtype=torch.int64, device=probes.device)
    block = _memory(probes, gallery)
    for first in range(0, len(gallery), _GALLERY):
        entries = gallery[first : first + _GALLERY]
        for part in _parts(probes):
            _merge(scores[part], indices[part], _product(probes[part], entries, block), first)
    return scores, indices


def _merge(top: Tensor, place: Tensor, found: Tensor, first: int) -> None:
    """Put better scores of a block into `top`, their index into `place`; leave other rows alone."""
    better = (found.amax(1) > top[:, -1]).nonzero()[:, 0]
    if not len(better):
        return
    new, at = found[better].topk(min(top.shape[1], found.shape[1]), dim=1)
    both = torch.cat([top[better], new], 1)
    where = torch.cat([place[better], at + first], 1)
    kept, order = both.topk(top.shape[1], dim=1)
    top[better], place[better] = kept, where.gather(1, order)


def _search(
    gallery: Tensor, entry: Tensor, probes: Tensor, probe: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """(P,) best score of an own entry, and (P, most) best scores of others, descending."""
    own = probes.new_full((len(probes),), -torch.inf)
    others = probes.new_full((len(probes), most), -torch.inf)
    place = torch.zeros_like(others, dtype=torch.int64)
    block = _memory(probes, gallery)
    order = entry.argsort()  # own entries of a probe are next to each other then
    for first in range(0, len(gallery), _GALLERY):
        taken = order[first : first + _GALLERY]
        entries, whose = F.normalize(gallery[taken]), entry[taken]
        for part in _parts(probes):
            found = _product(probes[part], entries, block)
            begin = torch.searchsorted(whose, probe[part], right=False)
            count = torch.searchsorted(whose, probe[part], right=True) - begin
            row = torch.repeat_interleave(count)  # (probe, own entry) pairs, one after the other
            column = begin[row] + torch.arange(len(row), device=row.device)
            column -= (count.cumsum(0) - count)[row]
            own[part].scatter_reduce_(0, row, found[row, column], "amax")
            found[row, column] = -torch.inf
            _merge(others[part], place[part], found, first)
    return own, others


def _parts(probes: Tensor) -> list[slice]:
    return [slice(start, start + _PROBES) for start in range(0, len(probes), _PROBES)]


def _memory(probes: Tensor, gallery: Tensor) -> Tensor:
    """For blocks of scores, used again: fresh pages cost as much as the product."""
    return probes.new_empty(min(_PROBES, len(probes)) * min(_GALLERY, len(gallery)))


def _product(probes: Tensor, entries: Tensor, memory: Tensor) -> Tensor:
    scores = memory[: len(probes) * len(entries)].view(len(probes), len(entries))
    if len(probes) <= _FEW and scores.device.type == "cpu":
        # Row by row, which reads the table as fast as memory gives it; products of a matrix with a
        # vector take two to three times as long on some processors.
        for probe, row in zip(probes, scores, strict=True):
            np.vecdot(entries.numpy(), probe.numpy(), out=row.numpy())
        return scores
    return torch.mm(probes, entries.T, out=scores)


def _threshold(best: Tensor, fpir: float) -> float:
    """The lowest threshold at which the share of searches that find anybody is at most `fpir`."""
    allowed = min(math.floor(fpir * len(best) + 1e-9), len(best))
    ordered = best.sort(descending=True).values
    if allowed == len(best):
        return -math.inf
    one_too_many = ordered[allowed]
    return float(torch.nextafter(one_too_many, one_too_many.new_tensor(math.inf)))


def _features(features: Tensor, what: str) -> Tensor:
    features = torch.as_tensor(features).detach()
    if features.dtype != torch.float64:
        features = features.float()
    if features.ndim != 2 or not len(features):
        raise InputError(f"{what}: expected (N, D) with N > 0, got {tuple(features.shape)}")
    check_finite(features, what)
    return features


def _numbered(
    gallery: Tensor | NDArray[Any],
    probes: Tensor | NDArray[Any],
    counts: tuple[int, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Subjects of the gallery and of the probes as numbers."""
    lists = [_array(subjects) for subjects in (gallery, probes)]
    for subjects, count, what in zip(lists, counts, ("gallery", "probe"), strict=True):
        if subjects.shape != (count,):
            raise InputError(
                f"{count} {what} features need as many subjects, got {tuple(subjects.shape)}"
            )
    number = np.unique(np.concatenate(lists), return_inverse=True)[1]
    first, second = torch.from_numpy(number).to(device).split(counts)
    return first, second


def _array(subjects: Tensor | NDArray[Any]) -> NDArray[Any]:
    return np.asarray(subjects.cpu() if isinstance(subjects, Tensor) else subjects)


def _members(number: Tensor) -> tuple[Tensor, ...]:
    """Indices of the images of each subject."""
    order = number.argsort()
    return order.split(torch.bincount(number).tolist())
