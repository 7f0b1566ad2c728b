"""Benchmarks from their files: results by loops over images, and what is wrong with files."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from helpers.benchmark_sets import (
    IMAGES,
    SUBJECTS,
    TEMPLATES,
    write_face,
    write_gallery,
    write_ijb,
    write_pairs_csv,
    write_tinyface,
)
from marginface.data import load_pairs
from marginface.data.pairs.files import write_pair_file
from marginface.data.unlabeled import UnlabeledFaces
from marginface.evaluation.benchmarks import (
    BenchmarkResult,
    GalleryBenchmark,
    IJBBenchmark,
    PairsBenchmark,
    TinyFaceBenchmark,
)
from marginface.evaluation.benchmarks.identities import linked_people, numbered
from marginface.evaluation.benchmarks.ijb import read_files
from marginface.evaluation.benchmarks.ijb_files import read_media
from marginface.utils.errors import InputError, MissingInputError


@pytest.fixture(scope="module")
def ijb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ijb")
    write_ijb(root)
    return root


def embeddings_of(faces: UnlabeledFaces) -> torch.Tensor:
    """Pixels, coarsely: enough to tell the pictures apart, not enough to be perfect."""
    images = torch.stack([faces[n][0] for n in range(len(faces))]).double()
    coarse = torch.nn.functional.adaptive_avg_pool2d(images, 3).flatten(1)
    return (coarse - 127).float()


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
    ("x_1N_gallery_G1.csv", lambda t: t[5:], "first columns must be TEMPLATE_ID,SUBJECT_ID"),
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


def test_tinyface(tmp_path: Path) -> None:
    write_tinyface(tmp_path)
    (task,) = TinyFaceBenchmark(root=str(tmp_path), bootstrap=20).tasks("tinyface", 32)
    assert len(task.faces) == 2 * SUBJECTS + 2 * SUBJECTS + 6
    embeddings = embeddings_of(task.faces)  # type: ignore[arg-type]
    outcome = task.evaluate(embeddings)
    unit = torch.nn.functional.normalize(embeddings)
    scores = unit[: 2 * SUBJECTS] @ unit[2 * SUBJECTS :].T
    subjects = torch.arange(SUBJECTS).repeat_interleave(2)
    found = torch.cat([subjects, torch.full((6,), -1)])[scores.argmax(1)]
    assert outcome.metrics["rank1"].value == (found == subjects).double().mean()
    assert list(outcome.metrics) == ["rank1", "rank5", "rank20"]
    assert outcome.counts["distractors"] == 6


def test_faults_of_tinyface(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not hold Probe, Gallery_Match"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    write_tinyface(tmp_path)
    mat = tmp_path / "Testing_Set" / "probe_img_ID_pairs.mat"
    good = mat.read_bytes()
    names = np.empty((1, 1), object)
    names[0, 0] = "3_0.jpg"
    savemat(mat, {"probe_set": names, "probe_ids": np.array([[4]])})
    with pytest.raises(InputError, match="say different subjects"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    mat.write_bytes(b"no MATLAB")
    with pytest.raises(InputError, match="expected a MATLAB 5 file with probe_set"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    mat.write_bytes(good)
    (tmp_path / "Testing_Set" / "Probe" / "1_0.jpg").unlink()
    with pytest.raises(MissingInputError, match="1_0.jpg: no such image, but the protocol has it"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    (tmp_path / "aligned" / "Gallery_Distractor").mkdir(parents=True)
    with pytest.raises(
        InputError, match="several sets of images; choose one.*Testing_Set, aligned"
    ):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    mat.unlink()
    with pytest.raises(MissingInputError, match="no probe_img_ID_pairs.mat"):
        TinyFaceBenchmark(root=str(tmp_path), images="Testing_Set").tasks("tinyface", 32)


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
        ("file,who\n", "no column path, subject"),
        ("path,subject\n", "lists no images"),
        ("path,subject\na.png,\n", "line 2 has no path or no subject"),
        ("path,subject,template\na.png,x,t\nb.png,y,t\n", "template 't' has subjects 'x' and 'y'"),
        ("path,subject\nnone.png,person 1\n", "none.png: cannot be read"),
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
    with pytest.raises(InputError, match="pair 0 says same=0 of its identities"):
        PairsBenchmark(["pairs.csv"], root=str(tmp_path)).tasks("custom_pairs", 32)
    (tmp_path / "pairs.csv").write_text(text.replace("s0/0.png", "gone.png"))
    (task,) = PairsBenchmark(["pairs.csv"], root=str(tmp_path)).tasks("custom_pairs", 32)
    with pytest.raises(InputError, match="gone.png: cannot be read"):
        task.faces.content_hash()


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
