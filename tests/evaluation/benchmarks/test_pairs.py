"""Pairs of one's own: people, groups, QMagFace."""

import math
from pathlib import Path

import pytest
import torch

from helpers.benchmark_sets import (
    SUBJECTS,
    embeddings_of,
    write_face,
    write_pairs_csv,
)
from marginface.backbones import create_backbone
from marginface.data import load_pairs
from marginface.data.pairs.files import write_pair_file
from marginface.evaluation.benchmarks import (
    PairsBenchmark,
)
from marginface.inference.embedder import Embedder
from marginface.metrics.linked_people import linked_people, numbered
from marginface.utils.errors import InputError, MissingInputError


def test_own_pairs_with_people_and_groups(tmp_path: Path) -> None:
    write_pairs_csv(tmp_path)
    benchmark = PairsBenchmark(["pairs.csv"], root=str(tmp_path), folds=4, bootstrap=30)
    (task,) = benchmark.tasks("custom_pairs", 32)
    assert task.name == "custom_pairs"
    outcome = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    assert outcome.counts["people, as far as pairs tell"] == SUBJECTS
    assert [g.group for g in outcome.groups] == ["even", "odd"]
    assert {"accuracy", "accuracy_exact", "accuracy_in_sample", "auc", "tar@1e-2"} <= (
        outcome.metrics.keys()
    )
    assert all(e.low <= e.value <= e.high for e in outcome.metrics.values())
    assert outcome.reject is not None
    optimistic = PairsBenchmark(
        ["pairs.csv"], root=str(tmp_path), folds=4, bootstrap=5, thresholds="in_sample"
    )
    (task,) = optimistic.tasks("custom_pairs", 32)
    other = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    assert "accuracy: threshold OPTIMISTIC" in " ".join(other.protocol)
    assert "accuracy_in_sample: threshold OPTIMISTIC" in " ".join(outcome.protocol)
    assert other.metrics["accuracy_grid"].value == outcome.metrics["accuracy"].value


def test_pairs_of_a_faulty_image_can_be_left_out(tmp_path: Path) -> None:
    write_pairs_csv(tmp_path)
    settings = {"root": str(tmp_path), "folds": 4, "bootstrap": 5}
    (whole,) = PairsBenchmark(["pairs.csv"], **settings).tasks("mine", 32)  # type: ignore[arg-type]
    damaged = whole.faces.encoded[2]  # type: ignore[attr-defined]
    (tmp_path / damaged).write_bytes(b"no image")
    embedder = Embedder(
        create_backbone("miniresnet8_half", image_size=32, embedding_size=8), 32, "rgb"
    )
    with pytest.raises(InputError, match=f"{damaged}: not a decodable image"):
        embedder.embed(whole.faces)
    benchmark = PairsBenchmark(["pairs.csv"], faulty="skip", **settings)  # type: ignore[arg-type]
    (task,) = benchmark.tasks("mine", 32)
    # Also where a whole batch of them is faulty, as where a folder is missing.
    one_by_one = embedder.embed(task.faces, batch_size=1)
    embeddings = embedder.embed(task.faces)
    torch.testing.assert_close(one_by_one, embeddings, equal_nan=True)
    outcome = task.evaluate(embeddings)
    names = task.faces.encoded  # type: ignore[attr-defined]
    left_out = sum(damaged in names[at : at + 2] for at in range(0, len(names), 2))
    assert left_out > 0
    assert outcome.counts["pairs"] == len(names) // 2 - left_out
    assert outcome.cautions[0].startswith(f"{left_out} of {len(names) // 2} pairs were left out")
    assert len(outcome.decisions.scores) == outcome.counts["pairs"]  # type: ignore[union-attr]


def test_people_of_text_lists(tmp_path: Path) -> None:
    """Folders are people only where they agree with the pairs."""
    for number in range(8):
        write_face(tmp_path / "all" / f"{number}.png", number % 4, number)
        write_face(tmp_path / f"p{number % 4}" / f"{number}.png", number % 4, number)
    for folders, people in (("all", 4), ("p", 4)):
        lines = []
        for number in range(4):
            one, other, stranger = (
                f"{folders if folders == 'all' else f'p{n % 4}'}/{n}.png"
                for n in (number, number + 4, (number + 1) % 4)
            )
            lines += [f"{one} {other} 1\n", f"{one} {stranger} 0\n"]
        (tmp_path / "pairs.txt").write_text("".join(lines))
        (task,) = PairsBenchmark(["pairs.txt"], root=str(tmp_path), folds=2).tasks("x", 32)
        outcome = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
        assert outcome.counts["people, as far as pairs tell"] == people


def test_columns_of_pairs(tmp_path: Path) -> None:
    write_face(tmp_path / "a.png", 0, 0)
    (tmp_path / "pairs.csv").write_text("first,second,same,identity1\na.png,a.png,1,x\n")
    benchmark = PairsBenchmark(["pairs.csv"], root=str(tmp_path), folds=2)
    with pytest.raises(InputError, match="folds must be between 2 and the 1 pairs, got 2"):
        benchmark.tasks("custom_pairs", 32)
    with (tmp_path / "pairs.csv").open("a") as file:
        file.write("a.png,a.png,1,x\n")
    with pytest.raises(InputError, match="there is no impostor pair among 2"):
        benchmark.tasks("custom_pairs", 32)
    with (tmp_path / "pairs.csv").open("a") as file:
        file.write("a.png,a.png,0,x\n")
    with pytest.raises(InputError, match="has the column identity1 and lacks the one of the other"):
        benchmark.tasks("custom_pairs", 32)
    with pytest.raises(InputError, match="a benchmark of pairs needs files"):
        PairsBenchmark([])
    with pytest.raises(InputError, match="qmagface needs alpha and beta, got"):
        PairsBenchmark(["a.bin"], qmagface={"alpha": 0.1})
    with pytest.raises(MissingInputError, match="no pair file"):
        PairsBenchmark(["a.bin"], root=str(tmp_path)).tasks("lfw", 32)


def test_identities_must_agree_with_labels(tmp_path: Path) -> None:
    write_pairs_csv(tmp_path)
    text = (tmp_path / "pairs.csv").read_text()
    (tmp_path / "pairs.csv").write_text("\ufeff" + text.replace(",1,0,0,", ",0,0,0,", 1))
    with pytest.raises(InputError, match="pair 0 has same=0 of its identities"):
        PairsBenchmark(["pairs.csv"], root=str(tmp_path)).tasks("custom_pairs", 32)
    (tmp_path / "pairs.csv").write_text(text.replace("s0/0.png", "gone.png"))
    (task,) = PairsBenchmark(["pairs.csv"], root=str(tmp_path)).tasks("custom_pairs", 32)
    with pytest.raises(InputError, match="gone.png: cannot be read"):
        task.faces.content_hash()


def test_people_that_pairs_tell(tmp_path: Path) -> None:
    """Bytes that are equal are one image, genuine pairs one person."""
    images = [bytes([n]) for n in (1, 2, 2, 3, 4, 5, 1, 6)]
    write_pair_file(tmp_path / "x.bin", images, [True, True, False, False])
    pairs = load_pairs(tmp_path / "x.bin")
    number = numbered(pairs.encoded)[pairs.pairs]
    one, other = linked_people(number[:, 0], number[:, 1], pairs.same)
    assert one[0] == other[0] == one[1] == other[1] == one[3]
    assert len({int(one[0]), int(one[2]), int(other[2]), int(other[3])}) == 4


def test_qmagface_lowers_scores(tmp_path: Path) -> None:
    write_pairs_csv(tmp_path)
    plain = PairsBenchmark(["pairs.csv"], root=str(tmp_path), folds=2, bootstrap=3)
    lowered = PairsBenchmark(
        ["pairs.csv"], root=str(tmp_path), folds=2, bootstrap=3,
        qmagface={"alpha": 0.5, "beta": 0.1},
    )  # fmt: skip
    outcomes = []
    for benchmark in (plain, lowered):
        (task,) = benchmark.tasks("custom_pairs", 32)
        outcomes.append(task.evaluate(embeddings_of(task.faces)))  # type: ignore[arg-type]
    scores = [o.decisions.scores for o in outcomes if o.decisions is not None]
    assert (scores[1] < scores[0]).all()
    assert "QMagFace, alpha 0.5" in " ".join(outcomes[1].protocol)
    assert "accuracy: threshold between any two" in " ".join(outcomes[1].protocol)
    assert "accuracy_grid" not in outcomes[1].metrics
    assert not math.isnan(outcomes[1].metrics["auc"].value)
