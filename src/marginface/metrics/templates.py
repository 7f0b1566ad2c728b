"""Templates: several images of one person as one feature, and scores between them (IJB 1:1)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.metrics.scores import check_finite
from marginface.utils.errors import InputError

_IMAGES, _PAIRS, _FETCHED = 1 << 11, 1 << 18, 1 << 12  # at once: bounded memory, long vectors
_TILE = 1024  # side of the blocks of the score matrix, a power of 2; 4 MB stay in the cache
# Fetching the two features of a pair takes as long as this many entries of a matrix product.
_FETCH_COST = 64


def weigh_features(
    features: Tensor, detector_score: Tensor | None = None, keep_norm: bool = True
) -> Tensor:
    """Features as IJB protocols aggregate them.

    Args:
        features: (N, D), image and mirror image added (insightface's F2).
        detector_score: (N,) confidence of the face detector to multiply by (D1); None leaves it
            out (D0).
        keep_norm: features keep their length, which weighs images by their quality (N1), or are
            normalized first (N0).

    Raises:
        InputError: lengths differ.
    """
    features = _floating(features)
    if not keep_norm:
        features = F.normalize(features)
    if detector_score is None:
        return features
    detector_score = torch.as_tensor(detector_score).to(features)
    if detector_score.shape != (len(features),):
        raise InputError(
            f"{len(features)} features need as many detector scores, got "
            f"{tuple(detector_score.shape)}"
        )
    return features * detector_score[:, None]


def aggregate_templates(
    features: Tensor, template_id: Tensor, media_id: Tensor
) -> tuple[Tensor, Tensor]:
    """The feature of each template, by the rule of IJB.

    Images of one medium (a photograph, or all frames of a video) are averaged, media are summed,
    the sum is normalized.

    Args:
        features: (N, D) float32 or float64, see `weigh_features`.
        template_id: (N,) whole numbers.
        media_id: (N,) whole numbers; they count within a template.

    Returns:
        (T, D) features of unit length and (T,) their template ids, ascending.

    Raises:
        InputError: lengths differ, no features, or features that are not finite.
    """
    features = _floating(features)
    if features.ndim != 2 or not len(features):
        raise InputError(f"features must be (N, D) with N > 0, got {tuple(features.shape)}")
    template_id, media_id = (
        _ids(ids, name, len(features)).to(features.device)
        for ids, name in ((template_id, "template ids"), (media_id, "media ids"))
    )
    check_finite(features, "features")
    templates, row = template_id.unique(return_inverse=True)
    media, medium = media_id.unique(return_inverse=True)
    _, place, count = (row * len(media) + medium).unique(return_inverse=True, return_counts=True)
    share = count[place].to(features.dtype).reciprocal()[:, None]
    total = features.new_zeros(len(templates), features.shape[1])
    for part in _slices(len(features), _IMAGES):
        total.index_add_(0, row[part], features[part] * share[part])
    total /= total.norm(dim=1, keepdim=True).clamp_min(1e-12)  # in place: no second copy
    return total, templates


def score_templates(
    template_features: Tensor, template_ids: Tensor, id1: Tensor, id2: Tensor
) -> Tensor:
    """Cosine of each pair of templates.

    Args:
        template_features: (T, D) of unit length, from `aggregate_templates`.
        template_ids: (T,) their ids.
        id1: (P,) ids of the templates to compare.
        id2: (P,) ids of those they are compared with.

    Returns:
        (P,) in the type of the features.

    Raises:
        InputError: lengths differ, an id occurs twice, or a pair names a template without images.
    """
    features = _floating(template_features)
    template_ids = _ids(template_ids, "template ids", len(features))
    id1 = _ids(id1, "first templates", None)
    id2 = _ids(id2, "second templates", len(id1))
    check_finite(features, "template features")
    order = _by_side(template_ids, id1)
    place = _places(template_ids[order])
    numbers = order.to(features.device).split(_TILE)  # of the templates of each row of tiles
    pairs = _SortedPairs(place, id1, id2, len(numbers))
    scores = features.new_empty(len(id1))
    block = features.new_empty(_TILE, _TILE)  # used again: fresh pages cost as much as the product
    for tile, parts in sorted(pairs.tiles.items()):
        rows, columns = (features[numbers[n]] for n in divmod(tile, len(numbers)))
        count = sum(part.stop - part.start for part in parts)
        is_full = _FETCH_COST * count >= len(rows) * len(columns)
        if is_full:
            torch.mm(rows, columns.T, out=block[: len(rows), : len(columns)])
        for part in parts:
            cell = pairs.cell[part].to(features.device)
            scores[part] = (
                block.view(-1).index_select(0, cell) if is_full else _dots(rows, columns, cell)
            )
    for part in _slices(len(scores), _PAIRS):  # back into the order of the pairs
        scores[part][pairs.order[part].to(scores.device)] = scores[part].clone()
    return scores


def _by_side(template_ids: Tensor, id1: Tensor) -> Tensor:
    """Templates that pairs name first before the others.

    IJB compares 3,531 gallery templates with 19,593 probes: so ordered, three quarters of the
    tiles hold no pair.
    """
    # Some of the pairs tell enough; a template they do not show is only in a worse place.
    sample = id1[:: max(len(id1) // _PAIRS, 1)]
    is_first = torch.isin(template_ids, sample)
    return torch.cat([is_first.nonzero()[:, 0], (~is_first).nonzero()[:, 0]])


class _SortedPairs:
    """Pairs by the tile of the score matrix they are in, sorted group by group of _PAIRS.

    A tile with many pairs is multiplied and looked up, for one with few the features are fetched:
    all pairs one by one would move 60 GB for IJB-C. Sorting is random access, so a group is small
    enough for the cache.

    Attributes:
        cell: (P,) int32, row x _TILE + column within the tile.
        order: (P,) int32, place of each in its group before sorting.
        tiles: where the pairs of each tile are.
    """

    def __init__(
        self, place: Callable[[Tensor, int], Tensor], id1: Tensor, id2: Tensor, across: int
    ) -> None:
        self.cell, self.order = (torch.empty(len(id1), dtype=torch.int32) for _ in range(2))
        self.tiles: dict[int, list[slice]] = {}

        def sort(part: slice) -> list[int]:
            first, second = place(id1[part], part.start), place(id2[part], part.start)
            low, high = torch.minimum(first, second), torch.maximum(first, second)
            return self._sort(low, high, part, across)

        parts = list(_slices(len(id1), _PAIRS))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy sorts on one core
            for part, counts in zip(parts, pool.map(sort, parts), strict=True):
                begin = part.start
                for tile, count in enumerate(counts):
                    if count:
                        self.tiles.setdefault(tile, []).append(slice(begin, begin + count))
                        begin += count

    def _sort(self, row: Tensor, column: Tensor, part: slice, across: int) -> list[int]:
        """Fills cell and order of a group; returns how many of its pairs are in each tile."""
        bits = _TILE.bit_length() - 1
        tile = (row >> bits) * across + (column >> bits)
        # NumPy sorts 16-bit numbers by counting.
        kind = np.uint16 if across**2 <= 1 << 16 else np.int32
        order = torch.from_numpy(np.argsort(tile.numpy().astype(kind), kind="stable"))
        self.order[part] = order.to(torch.int32)
        cell = ((row & (_TILE - 1)) << bits) + (column & (_TILE - 1))
        torch.index_select(cell, 0, order, out=self.cell[part])
        return torch.bincount(tile).tolist()


def _dots(rows: Tensor, columns: Tensor, cell: Tensor) -> Tensor:
    return torch.cat(
        [
            torch.linalg.vecdot(rows[part // _TILE], columns[part % _TILE])
            for part in cell.long().split(_FETCHED)
        ]
    )


def _places(template_ids: Tensor) -> Callable[[Tensor, int], Tensor]:
    """A function from ids (and the number of their first pair, for messages) to int32 rows."""
    known, order = template_ids.sort()
    twice = known[1:][known.diff() == 0]
    if len(twice):
        raise InputError(f"template id {int(twice[0])} has two features")
    low, high = (int(known[0]), int(known[-1])) if len(known) else (0, -1)
    table = None
    if high - low < 16 * len(known) + 4096:
        table = torch.full((high - low + 3,), -1, dtype=torch.int32)  # with an end on either side
        table[known - low + 1] = order.to(torch.int32)

    def place(ids: Tensor, start: int) -> Tensor:
        if table is not None:
            rows = table[ids.clamp(low - 1, high + 1) - (low - 1)]
        else:
            near = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
            rows = torch.where(known[near] == ids, order[near], -1).to(torch.int32)
        missing = rows < 0
        if missing.any():
            pair = int(missing.to(torch.int8).argmax())
            raise InputError(
                f"pair {start + pair} names template {int(ids[pair])}, which has no images; check "
                "the list of images against that of pairs"
            )
        return rows

    return place


def _ids(ids: Tensor, name: str, count: int | None) -> Tensor:
    ids = torch.as_tensor(ids).cpu()
    if ids.ndim != 1 or ids.is_floating_point() or (count is not None and len(ids) != count):
        wanted = "whole numbers" if count is None else f"{count} whole numbers"
        raise InputError(f"{name} must be {wanted}, got {ids.dtype} of shape {tuple(ids.shape)}")
    return ids.long()


def _floating(features: Tensor) -> Tensor:
    features = torch.as_tensor(features).detach()
    return features if features.dtype == torch.float64 else features.float()


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
