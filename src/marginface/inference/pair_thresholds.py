"""Thresholds of a verification set, for the models that are verified on it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marginface.data.pairs.files import PAIR_LIST_SUFFIXES, read_pair_columns
from marginface.data.pairs.verification_sets import PairFile, SampledPairs, VerificationSet
from marginface.metrics.bootstrap import Identities
from marginface.metrics.linked_people import linked_people, numbered
from marginface.metrics.threshold_estimates import (
    ImpostorScores,
    all_impostors,
    listed_impostors,
    thresholds_of,
)
from marginface.metrics.thresholds import Threshold
from marginface.utils.errors import InputError


def set_thresholds(
    images: VerificationSet,
    scores: NDArray[np.float64],
    embeddings: Tensor,
    *,
    flip: bool,
    precision: str,
) -> list[Threshold]:
    """Thresholds by false match rate, see `metrics.thresholds.FMRS`.

    Where the set says who each image shows, every pair of two people counts, which is thousands of
    times as many as a pair file lists; else the pairs of the file do.

    Args:
        images: the set.
        scores: (N,) cosines of its pairs.
        embeddings: (images, D) of it.
        flip, precision: how they were embedded.
    """
    impostors: ImpostorScores
    if isinstance(images, SampledPairs):
        impostors = all_impostors(embeddings, images.source.labels)
    else:
        people, _, stated = people_of_pairs(images)
        if stated:
            places = images.pairs.T.ravel()
            # An image in several pairs counts once.
            content = numbered(images.encoded)[places]
            once = np.unique(content, return_index=True)[1]
            impostors = all_impostors(embeddings[places[once]], np.concatenate(people)[once])
        else:
            different = ~images.same
            impostors = listed_impostors(scores[different], *(side[different] for side in people))
    return thresholds_of(impostors, name=images.name, flip=flip, precision=precision)


def people_of_pairs(
    pairs: PairFile,
) -> tuple[tuple[Identities, Identities], dict[str, NDArray[np.str_]], bool]:
    """Person of both sides of each pair, further columns of a .csv, whether the set states them.

    Otherwise whoever genuine pairs connect is one person, see `linked_people`.

    Raises:
        InputError: identities that contradict a pair.
    """
    columns = read_pair_columns(pairs.path) if pairs.path.suffix in PAIR_LIST_SUFFIXES else {}
    if "identity1" in columns:
        both = numbered([*columns["identity1"], *columns["identity2"]])
        one, other = both[: len(pairs.same)], both[len(pairs.same) :]
        wrong = (one == other) != pairs.same
        if wrong.any():
            pair = int(wrong.argmax())
            raise InputError(
                f"{pairs.path}: pair {pair} has same={int(pairs.same[pair])} of its identities; "
                "fix one or the other"
            )
        return (one, other), columns, True
    images = numbered(pairs.encoded)[pairs.pairs]
    if pairs.path.suffix == ".txt":  # LFW's lists name the person, by the folder
        people = numbered([str(Path(str(word)).parent) for word in pairs.encoded])[pairs.pairs]
        if ((people[:, 0] == people[:, 1]) == pairs.same).all():
            return (people[:, 0], people[:, 1]), columns, True
    return linked_people(images[:, 0], images[:, 1], pairs.same), columns, False
