"""RFW and BFW in their published layouts: per group and the worst group."""

import csv
from pathlib import Path

import numpy as np
import pytest

from helpers.benchmark_sets import embeddings_of, write_face
from marginface.evaluation.benchmarks import BFWBenchmark, PairsBenchmark, RFWBenchmark
from marginface.evaluation.page import evaluation_page
from marginface.utils.errors import InputError, MissingInputError

RACES = ("African", "Asian", "Caucasian", "Indian")
FEW = {"folds": 3, "bootstrap": 20, "fars": (0.1,)}


def write_rfw(root: Path) -> None:
    """Four races with three people each, six images a person."""
    for number, race in enumerate(RACES):
        lines = []
        for person in range(3):
            name = f"m.0{race[:2].lower()}{person}"
            for image in range(1, 7):
                path = root / "data" / race / name / f"{name}_{image:04d}.jpg"
                write_face(path, 10 * number + person, image)
            other = f"m.0{race[:2].lower()}{(person + 1) % 3}"
            # Genuine and impostor pairs take turns in each fold, as in the published lists.
            lines += [f"{name}\t1\t{2 + person}", f"{name}\t{1 + person}\t{other}\t4"]
            lines += [f"{name}\t5\t6", f"{name}\t2\t{other}\t6"]
        path = root / "txts" / race / f"{race}_pairs.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")


def test_rfw(tmp_path: Path) -> None:
    write_rfw(tmp_path / "test")
    (task,) = RFWBenchmark(root=str(tmp_path), **FEW).tasks("rfw", 32)
    assert len(task.faces) == len({str(p) for p in task.faces.encoded})  # type: ignore[attr-defined]
    result = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    assert result.counts["pairs"] == 48
    assert [group.group for group in result.groups] == list(RACES)
    accuracies = {race: result.metrics[f"accuracy_{race}"] for race in RACES}
    worst = result.metrics["accuracy_worst"]
    assert worst == min(accuracies.values(), key=lambda e: e.value)
    assert {"fdr", "garbe", "d_prime", "fmr100"} <= result.metrics.keys()
    table = result.tables[0]
    assert "the worst is" in table.title
    assert [row[:2] for row in table.rows] == [(race, 12) for race in RACES]
    # A race by itself is what its own list gives.
    for race in RACES:
        alone = PairsBenchmark(
            [str(tmp_path / "test" / "txts" / race / f"{race}_pairs.txt")],
            root=str(tmp_path / "test" / "data" / race), **FEW,
        )  # fmt: skip
        (task_alone,) = alone.tasks("pairs", 32)
        found = task_alone.evaluate(embeddings_of(task_alone.faces))  # type: ignore[arg-type]
        assert found.metrics["accuracy"].value == pytest.approx(accuracies[race].value)
    evaluation_page({"network": "n"}, [result], [1e-2], {}).write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "accuracy of the worst group" in text


def write_bfw(root: Path) -> None:
    rows = []
    for number, group in enumerate(("asian_females", "asian_males", "white_females")):
        for person in range(3):
            for image in range(4):
                name = f"{group}/n00{number}{person}/000{image}_01.jpg"
                write_face(root / "bfw-cropped-aligned" / name, 10 * number + person, image)
            folder, other = f"{group}/n00{number}{person}", f"{group}/n00{number}{(person + 1) % 3}"
            for a, b in ((0, 1), (2, 3)):
                rows.append([person, f"{folder}/000{a}_01.jpg", f"{folder}/000{b}_01.jpg", 1])
                rows.append([person, f"{folder}/000{a}_01.jpg", f"{other}/000{b}_01.jpg", 0])
    with (root / "bfw-v0.1.5-datatable.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "p1", "p2", "label", "id1", "id2", "att1", "att2", "vgg16"])
        for fold, one, two, label in sorted(rows, key=lambda row: -int(row[0])):
            groups = [str(path).split("/")[0] for path in (one, two)]
            writer.writerow([fold, one, two, float(label), 0, 0, *groups, 0.5])


def test_bfw(tmp_path: Path) -> None:
    write_bfw(tmp_path)
    (task,) = BFWBenchmark(root=str(tmp_path), **FEW).tasks("bfw", 32)
    result = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    assert len(task.faces) == 36, "an image in several pairs is embedded once"
    assert result.counts["pairs"] == 36
    assert result.counts["people, as far as pairs tell"] == 9
    assert {"accuracy_asian_females", "accuracy_worst"} <= result.metrics.keys()
    # In the order of the folds, whatever that of the file.
    pairs = task.faces.pairs  # type: ignore[attr-defined]
    persons = [int(Path(task.faces.encoded[i]).parent.name[-1]) for i in pairs[:, 0]]  # type: ignore[attr-defined]
    assert persons == sorted(persons)
    assert np.unique(pairs).size == 36


def test_groups_that_no_rate_can_be_told_of(tmp_path: Path) -> None:
    """Before anything is embedded; and a pair of one image with itself is named."""
    write_bfw(tmp_path)
    table = tmp_path / "bfw-v0.1.5-datatable.csv"
    heading, *rows = table.read_text().splitlines()
    genuine = [r for r in rows if "asian_males" not in r or ",1.0," in r]
    table.write_text("\n".join([heading, *genuine]))
    with pytest.raises(InputError, match="pairs within group asian_males: .*no impostor pair"):
        BFWBenchmark(root=str(tmp_path), **FEW).tasks("bfw", 32)
    across = [row.replace("white_females,0.5", "asian_males,0.5") for row in rows]
    across = [row.replace("asian_females,asian_females", "asian_females,x") for row in across]
    across = [row.replace("asian_males,asian_males", "asian_males,x") for row in across]
    across = [row.replace("white_females,white_females", "white_females,x") for row in across]
    table.write_text("\n".join([heading, *across]))
    with pytest.raises(InputError, match="has no pair of two people of one group"):
        BFWBenchmark(root=str(tmp_path), **FEW).tasks("bfw", 32)
    fields = rows[-1].split(",")
    fields[2] = fields[1]
    table.write_text("\n".join([heading, *rows[:-1], ",".join(fields)]))
    (task,) = BFWBenchmark(root=str(tmp_path), **FEW).tasks("bfw", 32)
    (caution,) = [c for c in task.cautions if "an image with itself" in c]
    assert f"({tmp_path / 'bfw-cropped-aligned' / fields[1]})" in caution or fields[1] in caution


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not a folder; it is that of the set"):
        RFWBenchmark(root=str(tmp_path / "none")).tasks("rfw", 32)
    with pytest.raises(MissingInputError, match="is not RFW as it is published"):
        RFWBenchmark(root=str(tmp_path)).tasks("rfw", 32)
    with pytest.raises(MissingInputError, match="one bfw-<version>-datatable.csv, found none"):
        BFWBenchmark(root=str(tmp_path)).tasks("bfw", 32)
    write_bfw(tmp_path)
    table = tmp_path / "bfw-v0.1.5-datatable.csv"
    text = table.read_text()
    table.write_text(text.replace(",1.0,", ",maybe,", 1))
    with pytest.raises(InputError, match="label must be 1 or 0, got 'maybe'"):
        BFWBenchmark(root=str(tmp_path)).tasks("bfw", 32)
    table.write_text(text.replace("att1", "group"))
    with pytest.raises(InputError, match="att1"):
        BFWBenchmark(root=str(tmp_path)).tasks("bfw", 32)
