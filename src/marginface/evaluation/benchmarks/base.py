"""Base classes of benchmarks: images to embed, and a result computed from their embeddings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marginface.data.image_dataset import ImageDataset
from marginface.metrics.bootstrap import Estimate, Identities
from marginface.metrics.groups import GroupRates
from marginface.metrics.scores import ScoredPairs
from marginface.metrics.thresholds import Threshold


class PairDecisions(NamedTuple):
    """Pairs one by one, to compare networks on them; no embeddings and no images.

    Attributes:
        scores: (N,) cosines.
        same: (N,) whether a pair is genuine.
        correct: (N,) whether it was decided rightly.
        identity1, identity2: (N,) person of both sides.
        compared: (N,) pairs that count in a comparison; all where accuracy is the measure, the
            genuine ones where it is TAR.
    """

    scores: NDArray[np.float64]
    same: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    identity1: Identities
    identity2: Identities
    compared: NDArray[np.bool_]


class HardPair(NamedTuple):
    """A pair that was hard: indices of its images in the dataset, and its score."""

    first: int
    second: int
    score: float


class ResultTable(NamedTuple):
    """Any other table for the report."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass
class BenchmarkResult:
    """Results of a benchmark.

    Attributes:
        name: of the benchmark or pair file.
        protocol: how the numbers came about, in words; printed with them everywhere.
        metrics: estimates by name, fractions unless the name says otherwise.
        counts: how many images, pairs, people, ...
        pairs: scores for curves, histograms and thresholds.
        decisions: for paired comparisons.
        pairs_sha256: tells whether others decided on the same pairs of the same images.
        hard: the hardest genuine and the hardest impostor pairs of images.
        groups: error rates of groups at the threshold `group_threshold`.
        reject: shares left out and FNMR, the error-versus-reject curve.
        discard_area: partial area under that curve; None where embeddings have one length, and
            with it no quality (an export that gives unit vectors).
        tables: anything else.
        cautions: why numbers may mislead, in words; printed as warnings.
        thresholds: for models to carry, where embeddings are compared by cosine.
        min_norm: norm below which 1 % of the embeddings are.
    """

    name: str
    protocol: list[str]
    metrics: dict[str, Estimate]
    counts: dict[str, int]
    pairs: ScoredPairs | None = None
    decisions: PairDecisions | None = None
    pairs_sha256: str = ""
    hard: dict[str, list[HardPair]] = field(default_factory=dict)
    groups: list[GroupRates] = field(default_factory=list)
    group_threshold: float | None = None
    reject: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None
    discard_area: Estimate | None = None
    tables: list[ResultTable] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    thresholds: list[Threshold] = field(default_factory=list)
    min_norm: float | None = None


@dataclass
class BenchmarkTask:
    """Images to embed and what to make of them.

    Attributes:
        name: the first part of its metrics' names.
        faces: the images.
        evaluate: (N, D) float32 embeddings, not normalized, to the result.
        cautions: why its numbers will mislead, known before embedding.
        evaluate_across: the same from the embeddings of two networks: of the first images of pairs
            by the one, of the second by the other. None where there is no such thing.
    """

    name: str
    faces: ImageDataset
    evaluate: Callable[[Tensor], BenchmarkResult]
    cautions: list[str] = field(default_factory=list)
    evaluate_across: Callable[[Tensor, Tensor], BenchmarkResult] | None = None


class Benchmark(Protocol):
    """Reads the files of a benchmark."""

    def tasks(self, name: str, image_size: int) -> list[BenchmarkTask]:
        """What there is to embed and to compute.

        Args:
            name: of the benchmark in the configuration.
            image_size: S that the network takes.

        Raises:
            InputError: files that are missing or wrong.
        """
        ...
