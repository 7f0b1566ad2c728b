"""A gallery of one's own."""

from pathlib import Path

import pytest

from helpers.benchmark_sets import (
    embeddings_of,
    write_gallery,
)
from marginface.evaluation.benchmarks import (
    BenchmarkResult,
    GalleryBenchmark,
)
from marginface.utils.errors import InputError, MissingInputError


def gallery_outcome(root: Path, **options: object) -> BenchmarkResult:
    (task,) = GalleryBenchmark(root=str(root), bootstrap=20, **options).tasks("own", 32)  # type: ignore[arg-type]
    return task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]


def test_own_gallery(tmp_path: Path) -> None:
    write_gallery(tmp_path, strangers=False)
    closed = gallery_outcome(tmp_path)
    assert closed.counts == {
        "probes": 16, "gallery entries": 8, "mated": 16, "non-mated": 0,
    }  # fmt: skip
    assert closed.metrics["rank1"].value > 0.8
    crowded = gallery_outcome(tmp_path, distractors="others")
    assert crowded.counts["distractors"] == 3
    assert crowded.metrics["rank1"].value <= closed.metrics["rank1"].value
    assert "MegaFace" in crowded.tables[0].title


def test_strangers_need_an_open_set(tmp_path: Path) -> None:
    write_gallery(tmp_path, strangers=True)
    with pytest.raises(InputError, match="probe subject person 0 is not in the gallery .4 of 16"):
        gallery_outcome(tmp_path)
    outcome = gallery_outcome(tmp_path, fpirs=[0.25])
    assert (outcome.counts["mated"], outcome.counts["non-mated"]) == (12, 4)
    assert 0 <= outcome.metrics["tpir@2.5e-1"].value <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,who,why\n", "no column subject; expected path,subject and got file,who,why"),
        ("path,subject\n", "lists no images"),
        ("path,subject\na.png,\n", "line 2 lacks its subject"),
        ("path,subject,template\na.png,x,t\nb.png,y,t\n", "template 't' has subjects 'x' and 'y'"),
        ("path,subject\nnone.png,person 1\n", "none of its first 1 images is below .*root="),
    ],
)
def test_faults_of_gallery_lists(tmp_path: Path, text: str, message: str) -> None:
    write_gallery(tmp_path, strangers=False)
    (tmp_path / "probes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        gallery_outcome(tmp_path)
    (tmp_path / "probes.csv").unlink()
    with pytest.raises(MissingInputError, match="no list .*probes.csv"):
        gallery_outcome(tmp_path)
