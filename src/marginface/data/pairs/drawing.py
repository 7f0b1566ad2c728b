"""Pairs drawn from labeled images, for verification."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError

Members = Sequence[NDArray[np.int64]]  # image indices of each identity
Pair = tuple[int, int]
FOLDS = 10


class Possible(NamedTuple):
    """How many different pairs there are."""

    genuine: int
    impostor: int


def possible_pairs(members: Members) -> Possible:
    """All pairs of images of some identities."""
    sizes = np.array([len(images) for images in members], np.int64)
    genuine = int((sizes * (sizes - 1) // 2).sum())
    images = int(sizes.sum())
    return Possible(genuine, images * (images - 1) // 2 - genuine)


def draw_genuine(members: Members, count: int, rng: np.random.Generator) -> set[Pair]:
    """`count` different pairs of one person; people take turns, so that none dominates."""
    several = [images for images in members if len(images) > 1]
    pairs: set[Pair] = set()
    turn = 0
    while len(pairs) < count:
        first, second = rng.choice(several[turn % len(several)], 2, replace=False)
        pairs.add((min(first, second), max(first, second)))
        turn += 1
    return pairs


def draw_impostor(members: Members, count: int, rng: np.random.Generator) -> set[Pair]:
    """`count` different pairs of two people."""
    pairs: set[Pair] = set()
    while len(pairs) < count:
        one, other = rng.choice(len(members), 2, replace=False)
        first, second = rng.choice(members[one]), rng.choice(members[other])
        pairs.add((min(first, second), max(first, second)))
    return pairs


def fold_pairs(
    labels: NDArray[np.int64], genuine: int, impostor: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs (N, 2) of image indices in ten contiguous folds, and which of them are genuine.

    Each fold has a tenth of both kinds, mixed, and people of its own.

    Args:
        labels: (M,) identities of the images.
        genuine, impostor: pairs of each kind, multiples of ten.
        seed: decides everything.

    Raises:
        InputError: numbers that are no multiples of ten, or more pairs than the images give.
    """
    for name, number in (("genuine", genuine), ("impostor", impostor)):
        if number < FOLDS or number % FOLDS:
            raise InputError(
                f"--{name} must be a multiple of {FOLDS}, one part a fold; got {number}"
            )
    rng = np.random.default_rng(seed)
    pairs, same = [], []
    for number, members in enumerate(_people_of_folds(labels, rng)):
        possible = possible_pairs(members)
        for kind, wanted, there in (
            ("genuine", genuine // FOLDS, possible.genuine),
            ("impostor", impostor // FOLDS, possible.impostor),
        ):
            if wanted > there:
                raise InputError(
                    f"fold {number} with {len(members)} people of its own has {there} {kind} "
                    f"pairs, --{kind}={wanted * FOLDS} needs {wanted}; ask for at most "
                    f"{there * FOLDS}, or give more images"
                )
        drawn = [
            *sorted(draw_genuine(members, genuine // FOLDS, rng)),
            *sorted(draw_impostor(members, impostor // FOLDS, rng)),
        ]
        order = rng.permutation(len(drawn))
        pairs.append(np.asarray(drawn, np.int64)[order])
        same.append(order < genuine // FOLDS)
    return np.concatenate(pairs), np.concatenate(same)


def _people_of_folds(labels: NDArray[np.int64], rng: np.random.Generator) -> list[Members]:
    """Image indices of the people of each fold, about as many images in each."""
    order = np.argsort(labels, kind="stable")
    people = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    if len(people) < 2 * FOLDS:
        raise InputError(
            f"{len(people)} identities are too few for {FOLDS} folds with people of their own; "
            f"{2 * FOLDS} are needed"
        )
    shuffled = [people[n] for n in rng.permutation(len(people))]
    folds: list[list[NDArray[np.int64]]] = [[] for _ in range(FOLDS)]
    images = [0] * FOLDS
    for person in sorted(shuffled, key=len, reverse=True):  # stable: equal ones stay shuffled
        fold = images.index(min(images))
        folds[fold].append(person)
        images[fold] += len(person)
    return list(folds)
