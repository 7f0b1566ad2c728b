"""IJB-B and IJB-C from their files: results by loops over images, and what is wrong with files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.benchmark_sets import (
    IMAGES,
    SUBJECTS,
    TEMPLATES,
    embeddings_of,
    write_ijb,
)
from marginface.evaluation.benchmarks import (
    IJBBenchmark,
)
from marginface.evaluation.benchmarks.ijb import read_files
from marginface.evaluation.benchmarks.ijb_files import read_media
from marginface.utils.errors import InputError, MissingInputError


@pytest.fixture(scope="module")
def ijb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ijb")
    write_ijb(root)
    return root


def test_ijb_by_hand(ijb: Path) -> None:
    benchmark = IJBBenchmark(root=str(ijb), bootstrap=30, fpirs=(0.1,), ranks=(1, 3), merged=True)
    (task,) = benchmark.tasks("ijbc", 112)
    embeddings = embeddings_of(task.faces)  # type: ignore[arg-type]
    outcome = task.evaluate(embeddings)
    # Templates by hand: weights, media, sum.
    features = {}
    for template in range(SUBJECTS * TEMPLATES):
        total = np.zeros(27)
        for media in ([0, 1], [2]):
            numbers = [template * IMAGES + image for image in media]
            total += np.mean(
                [float(f"0.99{(n + 1) % 10}") * embeddings[n].numpy() for n in numbers], axis=0
            )
        features[template + 1] = total / np.linalg.norm(total)
    subject = {t: (t - 1) // TEMPLATES for t in features}
    pairs = [(a, b) for a in features for b in features if a < b]
    genuine = [features[a] @ features[b] for a, b in pairs if subject[a] == subject[b]]
    impostor = [features[a] @ features[b] for a, b in pairs if subject[a] != subject[b]]
    auc = np.mean([(g > i) + 0.5 * (g == i) for g in genuine for i in impostor])
    assert outcome.metrics["auc"].value == pytest.approx(auc, abs=1e-4)
    ranks = []
    for side in (0, 1):
        gallery = {s: features[s * TEMPLATES + 1] for s in range(side, SUBJECTS, 2)}
        hits = [
            max(gallery, key=lambda s: features[t] @ gallery[s]) == subject[t]
            for t in features
            if (t - 1) % TEMPLATES and subject[t] in gallery
        ]
        ranks.append(np.mean(hits))
    assert outcome.metrics["rank1"].value == pytest.approx(np.mean(ranks))
    assert 0.3 < outcome.metrics["tar@1e-2"].value <= 1
    assert {"tpir@1e-1", "rank3", "merged/rank1"} <= outcome.metrics.keys()
    assert "merged/tpir@1e-1" not in outcome.metrics  # merged, everybody is known
    assert outcome.counts == {
        "images": 96, "templates": 32, "pairs": 496, "genuine": 48, "impostor": 448,
    }  # fmt: skip
    assert all(e.low <= e.value <= e.high for e in outcome.metrics.values())
    assert "(N1)" in " ".join(outcome.protocol)


def test_ijb_options_change_the_protocol(ijb: Path) -> None:
    benchmark = IJBBenchmark(root=str(ijb), bootstrap=5, keep_norm=False, detector_score=False)
    (task,) = benchmark.tasks("ijbb", 64)  # a size without a template is scaled
    assert task.faces[0][0].shape == (3, 64, 64)
    outcome = task.evaluate(embeddings_of(task.faces))  # type: ignore[arg-type]
    assert "removed first (N0), detector score left out (D0)" in " ".join(outcome.protocol)


FAULTS: list[tuple[str, Callable[[str], str] | None, str]] = [
    ("x_face_tid_mid.txt", None, r"no file \*_face_tid_mid.txt in .*meta"),
    ("x_name_5pts_score.txt", None, r"no file \*_name_5pts_score.txt"),
    ("x_1N_gallery_G2.csv", None, r"no file \*_1N_gallery_G2.csv"),
    ("x_1N_probe_mixed.csv", None, r"no file \*_1N_probe_mixed.csv"),
    ("x_face_tid_mid.txt", lambda t: t + "7.jpg 1\n", "line 97 is not 'image template_id"),
    ("x_face_tid_mid.txt", lambda t: t + "97.jpg 1 1\n", "has no points for 97.jpg .1 of the 97"),
    ("x_face_tid_mid.txt", lambda t: t.replace(" 1 0", " 1.5 0"), "expected lines 'image templ"),
    ("x_name_5pts_score.txt", lambda t: t.replace("1.jpg ", "1.jpg nan "), "line .* is not"),
    ("x_template_pair_label.txt", lambda t: t + "1 2\n", "three whole numbers a line"),
    ("x_template_pair_label.txt", lambda t: t + "1 x 0\n", "expected lines 'template1 template2"),
    ("x_template_pair_label.txt", lambda t: t + "1 2 5\n", "pair 496 has label 5"),
    ("x_template_pair_label.txt", lambda t: "", "lists no pairs"),
    ("x_template_pair_label.txt", lambda t: t + "1 99 0", "pair 496 names template 99, which"),
    ("x_1N_gallery_G1.csv", lambda t: t + "77,0,a\n", "gallery 1: template 77 has no images"),
    ("x_1N_gallery_G1.csv", lambda t: t + "1,5,a\n", "gives template 1 a second subject"),
    ("x_1N_gallery_G1.csv", lambda t: t[5:], "no columns? .*template_id"),
    ("x_1N_gallery_G1.csv", lambda t: t + "one,5\n", "line 6 is not two whole numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), FAULTS)
def test_faults_of_ijb_files(
    ijb: Path, tmp_path: Path, name: str, change: Callable[[str], str] | None, message: str
) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "loose_crop").symlink_to(ijb / "loose_crop")
    for file in (ijb / "meta").iterdir():
        (tmp_path / "meta" / file.name).write_text(file.read_text())
    path = tmp_path / "meta" / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        (task,) = IJBBenchmark(root=str(tmp_path), bootstrap=2).tasks("ijbc", 112)
        task.evaluate(torch.randn(len(task.faces), 4))


def test_ijb_needs_a_protocol(ijb: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no folder"):
        IJBBenchmark(root=str(tmp_path / "none")).tasks("ijbc", 112)
    (tmp_path / "meta").mkdir()
    for file in (ijb / "meta").iterdir():
        if "tid_mid" in file.name or "5pts" in file.name:
            (tmp_path / "meta" / file.name).write_text(file.read_text())
    with pytest.raises(MissingInputError, match=r"neither \*_template_pair_label.txt .1:1. nor"):
        IJBBenchmark(root=str(tmp_path)).tasks("ijbc", 112)
    (tmp_path / "meta" / "y_face_tid_mid.txt").write_text("1.jpg 1 1\n")
    with pytest.raises(InputError, match="several files"):
        IJBBenchmark(root=str(tmp_path)).tasks("ijbc", 112)


def test_labels_and_subjects_are_checked_before_embedding(ijb: Path, tmp_path: Path) -> None:
    shutil.copytree(ijb / "meta", tmp_path / "meta")
    pairs = tmp_path / "meta" / "x_template_pair_label.txt"
    good = pairs.read_text()
    pairs.write_text("1 2 1\n3 4 1\n")
    with pytest.raises(InputError, match="there is no impostor pair among 2"):
        read_files(tmp_path)
    pairs.write_text(good)
    for side in (1, 2):
        gallery = tmp_path / "meta" / f"x_1N_gallery_G{side}.csv"
        gallery.write_text("TEMPLATE_ID,SUBJECT_ID\n1,77\n")
    with pytest.raises(
        InputError, match="none of the probes shows anybody in one of the galleries"
    ):
        read_files(tmp_path)
    # Ids beyond what a float holds stay what they are.
    media = tmp_path / "meta" / "x_face_tid_mid.txt"
    media.write_text(media.read_text().replace("1.jpg 1 0", f"1.jpg {2**53 + 1} 0", 1))
    assert read_media(tmp_path).template_id[0] == 2**53 + 1
