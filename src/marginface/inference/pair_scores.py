"""Scores of listed pairs of photographs."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from marginface.data.pairs.files import read_photo_pairs
from marginface.inference.model import Model
from marginface.inference.photographs import OK
from marginface.inference.verification import Verification
from marginface.utils.console import progress_bar
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write


@dataclass(frozen=True)
class PairScores:
    """What became of the pairs.

    Attributes:
        pairs: in the list.
        same: taken for one person.
        different: taken for two.
        failed: without a score.
        threshold: a cosine.
        out: file with all of them.
    """

    pairs: int
    same: int
    different: int
    failed: int
    threshold: float
    out: str

    def as_text(self, as_json: bool = False) -> str:
        """A line, or JSON."""
        if as_json:
            return json.dumps(asdict(self))
        return (
            f"{self.pairs} pairs: {self.same} same, {self.different} different at threshold "
            f"{self.threshold:.3f}, {self.failed} without a score; {self.out}"
        )


def score_pairs(
    model: Model, pairs: Path, out: Path, limit: Verification, root: Path | None = None
) -> PairScores:
    """Write first,second,cosine,decision,reason for each pair, and `same` where the list has it.

    Every photograph is embedded once, in however many pairs it is.

    Args:
        root: folder that paths in the list are relative to; that of the list when not given.

    Raises:
        MissingInputError: no list.
        InputError: other columns, no photograph with a face, or a file that cannot be written.
    """
    rows, has_same = read_photo_pairs(pairs)
    names = list(dict.fromkeys(name for row in rows for name in row[:2]))
    with atomic_write(out, "w") as file:  # now, because embedding takes long
        of_name = _embedded(model, names, root or pairs.parent, pairs)
        decisions = []
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["first", "second", "cosine", "decision", "reason", *["same"] * has_same])
        for pair in rows:
            cosine, decision, reason = _decide(of_name[pair[0]], of_name[pair[1]], pair, limit)
            decisions.append(decision)
            writer.writerow([pair[0], pair[1], cosine, decision, reason, *pair[2:]])
    counts = {word: decisions.count(word) for word in ("same", "different", "failed")}
    return PairScores(len(rows), **counts, threshold=limit.threshold, out=str(out))


def _embedded(
    model: Model, names: list[str], root: Path, pairs: Path
) -> dict[str, tuple[str, np.ndarray]]:
    """Status and embedding of each photograph, by its name.

    Raises:
        InputError: not one of them has a face.
    """
    paths = [str(root / name) for name in names]
    with progress_bar() as bar:
        task = bar.add_task("photographs", total=len(paths))
        finder = model.finder(paths, "only")
        found = {}
        for part in model.embed_stream(
            paths, finder, on_photo=lambda n: bar.update(task, completed=n)
        ):
            for row in range(len(part)):
                if part.face[row] == 0:
                    found[part.photo[row]] = part.status[row], part.embedding[row]
    if all(status != OK for status, _ in found.values()):
        path, (status, _) = next(iter(found.items()))
        raise InputError(
            f"no photograph of {pairs} has a face that can be used; the first, {path}: {status} "
            "(--root names the folder that paths are relative to)"
        )
    return dict(zip(names, (found[path] for path in paths), strict=True))


def _decide(
    first: tuple[str, np.ndarray],
    second: tuple[str, np.ndarray],
    row: tuple[str, ...],
    limit: Verification,
) -> tuple[str, str, str]:
    for name, (status, _) in zip(row, (first, second), strict=False):
        if status != OK:
            return "", "failed", f"{name}: {status}"
    cosine = float(first[1] @ second[1])
    return f"{cosine:.6f}", "same" if cosine >= limit.threshold else "different", ""
