"""Identification with one's own gallery and probes, listed in .csv files."""

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from marginface.data.image_files import find_photos, found_below, read_image_file
from marginface.data.image_list import read_image_list
from marginface.data.unlabeled import UnlabeledFaces
from marginface.evaluation.benchmarks.base import BenchmarkResult, BenchmarkTask, ResultTable
from marginface.evaluation.cautions import rate_caution
from marginface.metrics.bootstrap import Estimate
from marginface.metrics.identification import (
    DEFAULT_RANKS,
    check_subjects,
    distractor_identification,
    identification,
)
from marginface.metrics.identification_intervals import identification_intervals, with_fnir
from marginface.metrics.linked_people import numbered
from marginface.metrics.templates import aggregate_templates
from marginface.metrics.threshold_estimates import all_impostors, thresholds_of
from marginface.metrics.thresholds import Threshold
from marginface.utils.arguments import Probability, Ranks, Seed, WholeNumber
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.text_table import readable

DISTRACTOR = "\0distractor"
_ROOT_SETTING = "benchmark.<name>.root"


class Listed(NamedTuple):
    """Images of a list: file, subject and template of each."""

    files: list[str]
    subjects: list[str]
    templates: list[str]


class GalleryBenchmark:
    """Probes searched in a gallery.

    Args:
        root: folder of the images and, unless their paths are absolute, of the lists.
        gallery, probes: .csv with the columns path,subject and, where several images make one
            template, template.
        distractors: folder (below root) of further gallery images of other people; null for none.
        ranks: to report identification rates at.
        fpirs: rates to report TPIR at; empty for a closed set, in which every probe's subject must
            be in the gallery.
        bootstrap: replicates for the intervals.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        *,
        root: str,
        gallery: str = "gallery.csv",
        probes: str = "probes.csv",
        distractors: str | None = None,
        ranks: Ranks = DEFAULT_RANKS,
        fpirs: Sequence[Probability] = (),
        bootstrap: WholeNumber = 1000,
        seed: Seed = 0,
    ) -> None:
        self.root = Path(root)
        self.gallery, self.probes, self.distractors = gallery, probes, distractors
        self.ranks, self.fpirs = tuple(ranks), tuple(fpirs)
        self.bootstrap, self.seed = bootstrap, seed

    def tasks(self, name: str, image_size: int) -> list[BenchmarkTask]:
        paths = [self.root / file for file in (self.gallery, self.probes)]
        lists = [
            listed._replace(files=found_below(self.root, listed.files, path, _ROOT_SETTING))
            for path, listed in zip(paths, map(read_gallery, paths), strict=True)
        ]
        owners, subjects = (np.array(listed.subjects) for listed in lists)
        try:
            check_subjects(owners, subjects, is_open=bool(self.fpirs))  # now: embedding takes long
        except InputError as error:
            raise InputError(
                f"benchmark.{name}.probes={self.probes}: {error} (subjects there begin with "
                f"{subjects[0]!r}, in {self.gallery} with {owners[0]!r})"
            ) from error
        cautions = same_files(lists[0], lists[1], self.root)
        if self.distractors is not None:
            photos = [f"{self.distractors}/{p}" for p in find_photos(self.root / self.distractors)]
            lists.append(Listed(photos, [DISTRACTOR] * len(photos), photos))
        faces = UnlabeledFaces(
            self.root, [f for listed in lists for f in listed.files], image_size=image_size
        )
        return [BenchmarkTask(name, faces, partial(self.evaluate, name, lists), cautions)]

    def evaluate(self, name: str, lists: list[Listed], embeddings: Tensor) -> BenchmarkResult:
        """Results from the embeddings of gallery, probes and distractors, in that order."""
        parts = embeddings.split([len(listed.files) for listed in lists])
        sides = [_templates(part, listed) for part, listed in zip(parts, lists, strict=True)]
        (gallery, owners), (probes, subjects) = sides[:2]
        tables, counts = [], {"probes": len(probes), "gallery entries": len(gallery)}
        if self.distractors is not None:
            others = sides[2][0]
            counts["distractors"] = len(others)
            images, whose = torch.cat([gallery, probes]), np.array(owners + subjects)
            rates = distractor_identification(images, whose, others, self.ranks)
            rows = [(k, f"{100 * rate:.2f}") for k, rate in rates.items()]
            title = (
                "MegaFace's protocol: each image, each other one of its subject, distractors (%)"
            )
            tables.append(ResultTable(title, ("rank", "rate"), rows))
            gallery, owners = torch.cat([gallery, others]), owners + [DISTRACTOR] * len(others)
        result = identification(
            gallery, np.array(owners), probes, np.array(subjects), self.ranks, self.fpirs
        )  # fmt: skip
        counts |= {"mated": result.mated, "non-mated": result.non_mated}
        metrics: dict[str, Estimate] = with_fnir(
            identification_intervals([result], np.array(subjects), self.bootstrap, self.seed)
        )
        kind = "open" if self.fpirs else "closed"
        return BenchmarkResult(
            name,
            [
                "images: cut to a square, not aligned; align them first",
                f"1:N {kind} set: cosine; templates are the normalized sum of their images; of "
                "equal scores the wrong one comes first",
                f"intervals: 95 %, {self.bootstrap} bootstrap replicates over the probes' subjects",
            ],
            metrics,
            counts,
            tables=tables,
            cautions=rate_caution("tpir@fpir", self.fpirs, result.non_mated),
            thresholds=_thresholds(name, parts, lists),
            min_norm=float(torch.cat(parts[:2]).norm(dim=1).double().quantile(0.01)),
        )


def _thresholds(name: str, parts: Sequence[Tensor], lists: list[Listed]) -> list[Threshold]:
    """From all pairs of two people in gallery and probes; none where there is one person only."""
    people = numbered(lists[0].subjects + lists[1].subjects)
    if len(np.unique(people)) < 2:
        return []
    # How they were embedded is added where that is known.
    impostors = all_impostors(torch.cat(list(parts[:2])), people)
    return thresholds_of(impostors, name=name, flip=True, precision="")


def same_files(gallery: Listed, probes: Listed, root: Path) -> list[str]:
    """A sentence on probes that are images of the gallery, or copies of them."""
    sizes = [{_size(root, file) for file in side.files} for side in (gallery, probes)]
    shared = sizes[0] & sizes[1] - {-1}  # only files of these can be copies, and are read
    known = {os.path.normpath(file) for file in gallery.files}
    contents = {_digest(root, file) for file in gallery.files if _size(root, file) in shared}
    same = [
        probe
        for probe in probes.files
        if os.path.normpath(probe) in known
        or (_size(root, probe) in shared and _digest(root, probe) in contents)
    ]
    if not same:
        return []
    return [
        f"{len(same)} of {len(probes.files)} probes are the very files of the gallery, the first "
        f"is {readable(same[0])}: they find themselves, and the rates say nothing of the others"
    ]


def _size(root: Path, file: str) -> int:
    """Bytes of a file; -1 for one that is not there, which is reported where images are read."""
    try:
        return os.path.getsize(root / file)
    except OSError:
        return -1


def _digest(root: Path, file: str) -> bytes:
    return hashlib.blake2b(read_image_file(root, file)).digest()


def read_gallery(path: Path) -> Listed:
    """A .csv with the columns path,subject and perhaps template, see `read_image_list`.

    Raises:
        MissingInputError: no such file.
        InputError: other columns, a row without a value, or a template of two subjects.
    """
    if not path.is_file():
        raise MissingInputError(f"no list {path}")
    files, words, more = read_image_list(path, "subject", {"template": ("template_id",)})
    subjects = [readable(word) for word in words]
    # Without a name of its own each image is a template.
    templates = more.get("template") or [f"\0{number}" for number in range(len(files))]
    owner: dict[str, str] = {}
    for template, subject in zip(templates, subjects, strict=True):
        if owner.setdefault(template, subject) != subject:
            raise InputError(f"{path}: template {template!r} has subjects {owner[template]!r} and "
                             f"{subject!r}")  # fmt: skip
    return Listed(files, subjects, templates)


def _templates(embeddings: Tensor, listed: Listed) -> tuple[Tensor, list[str]]:
    """(T, D) templates and the subject of each."""
    number = numbered(listed.templates)
    features, _ = aggregate_templates(
        embeddings, torch.from_numpy(number), torch.arange(len(embeddings))
    )
    first = np.unique(number, return_index=True)[1]
    return features, [listed.subjects[row] for row in first]
