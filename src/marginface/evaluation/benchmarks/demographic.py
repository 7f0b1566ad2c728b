"""Benchmarks whose pairs are balanced over groups of people: RFW, BFW."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marginface.data.image_files import found_below
from marginface.data.pairs.cautions import pair_cautions
from marginface.data.pairs.files import read_pair_list
from marginface.data.pairs.verification_sets import PairFile
from marginface.evaluation.benchmarks.base import BenchmarkResult, BenchmarkTask, ResultTable
from marginface.evaluation.benchmarks.pairs import KnownPeople, PairsBenchmark
from marginface.metrics.bootstrap import Estimate
from marginface.metrics.linked_people import numbered
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.tables import interval_cell, metric_cell
from marginface.utils.text_table import read_table

_BFW_COLUMNS = ("p1", "p2", "label", "att1", "att2", "fold")
_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


class GroupedPairs(PairsBenchmark):
    """Pairs of several groups: besides the whole, the accuracy of each group on its own pairs.

    Args:
        root: folder of the set as it is published, its images aligned.
        settings: of `PairsBenchmark`.
    """

    def __init__(self, *, root: str, **settings: Any) -> None:
        super().__init__([root], root=root, **settings)
        self.folder = Path(root)

    def tasks(self, name: str, image_size: int) -> list[BenchmarkTask]:
        if not self.folder.is_dir():
            raise MissingInputError(
                f"benchmark.{name}.root={self.folder} is not a folder; it is that of the set"
            )
        images, places, same, groups = self.read()
        pairs = PairFile(
            self.folder, images, same,
            root=self.images_folder(), image_size=image_size, faulty=self.faulty,
        )  # fmt: skip
        pairs.pairs = places  # an image in many pairs is embedded once
        self.check_pairs(same)
        self._check_groups(same, groups)
        # Both sets keep every person in a folder of its own.
        person = numbered([str(Path(image).parent) for image in images])[places]
        columns = {"group1": groups[:, 0], "group2": groups[:, 1]}
        known: KnownPeople = ((person[:, 0], person[:, 1]), columns)
        evaluate = partial(self.evaluate, name, pairs, known)
        return [BenchmarkTask(name, pairs, evaluate, pair_cautions(pairs, self.folds), evaluate)]

    def _check_groups(self, same: NDArray[np.bool_], groups: NDArray[np.str_]) -> None:
        """InputError unless there are groups, each with pairs that a rate can be told of."""
        within = groups[:, 0] == groups[:, 1]
        if not within.any():
            raise InputError(f"{self.folder} has no pair of two people of one group")
        for group in np.unique(groups[within, 0]):
            try:
                self.check_pairs(same[within & (groups[:, 0] == group)])
            except InputError as error:
                raise InputError(f"{self.folder}, pairs within group {group}: {error}") from error

    def read(
        self,
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_], NDArray[np.str_]]:
        """Images below `images_folder`, (N, 2) their numbers in pairs, (N,) same, (N, 2) groups."""
        raise NotImplementedError

    def images_folder(self) -> Path:
        """The folder that the names of images are relative to."""
        raise NotImplementedError

    def evaluate(
        self,
        name: str,
        pairs: PairFile,
        known: KnownPeople,
        embeddings: Tensor,
        others: Tensor | None = None,
    ) -> BenchmarkResult:
        """The whole, then each group on its own pairs, and the worst of them."""
        result = super().evaluate(name, pairs, known, embeddings, others)
        (one, other), columns = known
        within = columns["group1"] == columns["group2"]
        rows: list[tuple[Any, ...]] = []
        accuracies: dict[str, Estimate] = {}
        headings: tuple[str, ...] = ()
        for group in np.unique(columns["group1"][within]):
            chosen = within & (columns["group1"] == group)
            people = one[chosen], other[chosen]
            part = pairs.take(chosen)
            of_group = super().evaluate(str(group), part, (people, {}), embeddings, others)
            accuracies[str(group)] = of_group.metrics["accuracy"]
            rates = [rate for rate in of_group.metrics if rate.startswith("tar@")]
            cells = [of_group.metrics[rate] for rate in ("accuracy", *rates)]
            shown = [
                f"{metric_cell('', e.value)} ({interval_cell('', e.low, e.high)})" for e in cells
            ]
            rows.append((str(group), int(chosen.sum()), *shown))
            headings = ("group", "pairs", "accuracy", *rates)
        worst = min(accuracies, key=lambda group: accuracies[group].value)
        result.metrics |= {f"accuracy_{group}": found for group, found in accuracies.items()}
        result.metrics["accuracy_worst"] = accuracies[worst]
        title = f"Each group on its own pairs, percent (95 % interval); the worst is {worst}"
        result.tables.insert(0, ResultTable(title, headings, rows))
        result.protocol.append(
            "accuracy_<group>: on the pairs within the group alone, with thresholds from its own "
            "folds; accuracy_worst is the lowest of them"
        )
        return result


class RFWBenchmark(GroupedPairs):
    """Racial Faces in the Wild (Wang et al., arXiv 1812.00194): 6,000 pairs of each of four groups.

    Published are `txts/<Race>/<Race>_pairs.txt` and `data/<Race>/<person>/<person>_0001.jpg`; root
    holds both, or is the folder above.
    """

    def images_folder(self) -> Path:
        return self._inside() / "data"

    def read(
        self,
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_], NDArray[np.str_]]:
        inside = self._inside()
        files: list[str] = []
        labels, groups, folds = [], [], []
        for path in sorted((inside / "txts").glob("*/*_pairs.txt")):
            race = path.parent.name
            images, same = read_pair_list(path, inside / "data" / race)
            files += [f"{race}/{image}" for image in images]
            labels.append(same)
            groups.append(np.full((len(same), 2), race))
            # Each group is ten folds one after the other; the whole keeps them together.
            folds.append(np.arange(len(same)) * self.folds // len(same))
        order = np.argsort(np.concatenate(folds), kind="stable")
        images, places = _once(files)
        return images, places[order], np.concatenate(labels)[order], np.concatenate(groups)[order]

    def _inside(self) -> Path:
        for folder in (self.folder, self.folder / "test"):
            if (folder / "data").is_dir() and list((folder / "txts").glob("*/*_pairs.txt")):
                return folder
        raise MissingInputError(
            f"{self.folder} is not RFW as it is published: expected txts/<Race>/<Race>_pairs.txt "
            "and data/<Race>/ in it or in its folder test"
        )


class BFWBenchmark(GroupedPairs):
    """Balanced Faces in the Wild (Robinson et al., arXiv 2002.06483): 8 groups by origin and sex.

    Published is `bfw-<version>-datatable.csv` with the columns p1,p2,label,att1,att2,fold (and
    others), and images <group>/<person>/<image>.jpg, in root or in a folder of it.
    """

    def __init__(self, *, root: str, **settings: Any) -> None:
        super().__init__(root=root, **settings)
        self._cells: list[list[str]] = []

    def images_folder(self) -> Path:
        group, person, image = self._table()[1][0].split("/")[-3:]
        for folder in (self.folder, *sorted(p for p in self.folder.iterdir() if p.is_dir())):
            if (folder / group / person / image).is_file():
                return folder
        raise MissingInputError(
            f"{group}/{person}/{image} of BFW is neither in {self.folder} nor in a folder of it"
        )

    def read(
        self,
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_], NDArray[np.str_]]:
        path, _, cells = self._table()
        files = [name for row in cells for name in row[:2]]
        unknown = next((row[2] for row in cells if row[2].lower() not in _FLAGS), None)
        if unknown is not None:
            raise InputError(f"{path}: label must be 1 or 0, got {unknown!r}")
        same = np.array([_FLAGS[row[2].lower()] for row in cells])
        groups = np.array([row[3:5] for row in cells])
        folds = np.array([float(row[5] or 0) for row in cells])
        order = np.argsort(folds, kind="stable")
        images, places = _once(files)
        images = found_below(self.images_folder(), images, path, "benchmark.<name>.root")
        return images, places[order], same[order], groups[order]

    def _table(self) -> tuple[Path, list[str], list[list[str]]]:
        """The datatable, the images of its first row, and the wanted cells of every row."""
        paths = sorted(self.folder.glob("*datatable*.csv"))
        if len(paths) != 1:
            names = ", ".join(path.name for path in paths) or "none"
            raise MissingInputError(
                f"{self.folder} must hold one bfw-<version>-datatable.csv, found {names}"
            )
        if not self._cells:
            table = read_table(paths[0], lambda fields, others: {"p1", "p2"} <= set(fields))
            if table.headings is None:
                raise InputError(f"{paths[0]}: its first line does not name p1, p2, label, ...")
            wanted: dict[str, tuple[str, ...]] = dict.fromkeys(_BFW_COLUMNS, ())
            self._cells = [list(row) for row in table.by_heading(wanted)]
            if not self._cells:
                raise InputError(f"{paths[0]} lists no pairs")
        return paths[0], self._cells[0][:2], self._cells


def _once(files: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Every image once, and (N, 2) their numbers in pairs."""
    places = numbered(files)
    images = list(dict.fromkeys(files))
    return images, places.reshape(-1, 2)
