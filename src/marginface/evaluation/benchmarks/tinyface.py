"""TinyFace: small faces, closed-set identification among distractors."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from torch import Tensor

from marginface.data.image_files import is_hidden, is_image_name, visible
from marginface.data.unlabeled import UnlabeledFaces
from marginface.evaluation.benchmarks.base import BenchmarkResult, BenchmarkTask
from marginface.metrics.identification import check_subjects, identification
from marginface.metrics.identification_intervals import identification_intervals
from marginface.utils.arguments import Ranks, Seed, WholeNumber
from marginface.utils.errors import InputError, MissingInputError

DISTRACTOR = -100  # a subject that no probe has


class TinyFaceBenchmark:
    """The 1:N protocol in gallery_match_img_ID_pairs.mat and probe_img_ID_pairs.mat.

    Args:
        root: folder that holds both .mat files, at any depth.
        images: folder with Probe/, Gallery_Match/ and Gallery_Distractor/, relative to root (for
            instance aligned_pad_0.1_pad_high); null finds the only one.
        ranks: to report identification rates at.
        bootstrap: replicates for the intervals.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        *,
        root: str,
        images: str | None = None,
        ranks: Ranks = (1, 5, 20),
        bootstrap: WholeNumber = 1000,
        seed: Seed = 0,
    ) -> None:
        self.root, self.images = Path(root), images
        self.ranks, self.bootstrap, self.seed = tuple(ranks), bootstrap, seed

    def tasks(self, name: str, image_size: int) -> list[BenchmarkTask]:
        folder = self._folder()
        files, subjects, counts = [], [], []
        for kind, inside in (("probe", "Probe"), ("gallery", "Gallery_Match")):
            names, ids = _read_protocol(self._mat(kind), kind)
            files += [f"{inside}/{image}" for image in names]
            subjects += ids
            counts.append(len(names))
        distractors = sorted(
            path.name
            for path in (folder / "Gallery_Distractor").iterdir()
            if is_image_name(path.name) and not is_hidden(path.name)
        )
        files += [f"Gallery_Distractor/{image}" for image in distractors]
        subjects += [DISTRACTOR] * len(distractors)
        for file in files:
            if not (folder / file).is_file():
                raise MissingInputError(f"{folder / file}: no such image, but the protocol has it")
        faces = UnlabeledFaces(folder, files, image_size=image_size)
        labels = np.array(subjects, np.int64)
        check_subjects(labels[counts[0] :], labels[: counts[0]], is_open=False)
        return [BenchmarkTask(name, faces, partial(self.evaluate, name, labels, counts[0]))]

    def evaluate(
        self, name: str, subjects: NDArray[np.int64], probes: int, embeddings: Tensor
    ) -> BenchmarkResult:
        """Results from the embeddings of probes, gallery and distractors, in that order."""
        labels = torch.from_numpy(subjects)
        result = identification(
            embeddings[probes:], labels[probes:], embeddings[:probes], labels[:probes], self.ranks
        )
        return BenchmarkResult(
            name,
            [
                "images: as aligned in the folder, cut to a square",
                "1:N closed set: cosine to every gallery image and distractor; of equal scores the "
                "wrong one comes first",
                f"intervals: 95 %, {self.bootstrap} bootstrap replicates over the probes' subjects",
            ],
            identification_intervals([result], subjects[:probes], self.bootstrap, self.seed),
            {
                "probes": probes,
                "gallery images": int((subjects[probes:] != DISTRACTOR).sum()),
                "distractors": int((subjects == DISTRACTOR).sum()),
            },
        )

    def _folder(self) -> Path:
        if self.images is not None:
            folders = [self.root / self.images]
        else:
            folders = sorted(
                {p.parent for p in self.root.rglob("Gallery_Distractor") if p.is_dir()}
            )
        inside = ("Probe", "Gallery_Match", "Gallery_Distractor")
        if len(folders) > 1:
            names = ", ".join(str(folder.relative_to(self.root)) for folder in folders)
            raise InputError(
                f"{self.root} holds several sets of images; choose one with images=: {names}"
            )
        if not folders or not all((folders[0] / name).is_dir() for name in inside):
            where = folders[0] if folders else self.root
            raise MissingInputError(f"{where} does not hold {', '.join(inside)}")
        return folders[0]

    def _mat(self, kind: str) -> Path:
        name = {"probe": "probe", "gallery": "gallery_match"}[kind] + "_img_ID_pairs.mat"
        found = visible(self.root, f"**/{name}")
        if not found:
            raise MissingInputError(f"no {name} below {self.root}")
        return found[0]


def _read_protocol(path: Path, kind: str) -> tuple[list[str], list[int]]:
    """Names and subjects; the subject is also the number before the _ of a name."""
    try:
        content = loadmat(path)
        names = [str(np.asarray(cell).item()) for cell in content[f"{kind}_set"].ravel()]
    except Exception as error:  # scipy has many ways to refuse a file
        raise InputError(
            f"{path}: expected a MATLAB 5 file with {kind}_set and {kind}_ids: {error}"
        ) from error
    subjects = []
    for name in names:
        number = name.split("_")[0]
        if not number.isdigit():
            raise InputError(f"{path}: {name!r} does not begin with the number of its subject")
        subjects.append(int(number))
    stated = np.asarray(content.get(f"{kind}_ids", subjects)).ravel()
    if len(stated) != len(subjects) or (stated != subjects).any():
        raise InputError(f"{path}: {kind}_ids and the names of {kind}_set disagree on the subjects")
    return names, subjects
