"""Planted faults are found, one line each; clean sets have none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from helpers.browser import screenshot
from helpers.commands import marginface
from helpers.paths import ROOT
from helpers.pictures import make_folder, picture
from marginface.data import SyntheticFaces, write_pair_file, write_recordio
from marginface.data.alignment.mean_face import fit_template, template_face
from marginface.data.images import encode_jpeg
from marginface.data.packing import pack
from marginface.inspection import inspect_data
from marginface.inspection.duplicates import exact_duplicates, near_duplicates
from marginface.inspection.identities import alike_identities, label_suspects
from marginface.inspection.measurements import beyond_photograph
from marginface.inspection.report import write_inspection
from marginface.utils.errors import InputError


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """No faces, but pictures that differ; too few for the checks of alignment of single crops."""
    return make_folder(tmp_path / "faces", [4, 4, 4, 4])


def lines(root: Path, **settings: object) -> dict[str, str]:
    """Reasons by file, the alignment of these pictures left out."""
    findings = inspect_data(root, **settings)  # type: ignore[arg-type]
    return {f.where: f.reason for f in findings.faults if f.kind != "alignment"}


def test_a_clean_set(clean: Path) -> None:
    assert lines(clean) == {}


def test_every_planted_fault_is_named(clean: Path) -> None:
    good = (clean / "p0" / "0.jpg").read_bytes()
    planted = {
        "p0/cut.jpg": good[: len(good) // 2],
        "p0/empty.jpg": b"",
        "p0/text.jpg": b"hello",
        "p1/again.jpg": (clean / "p1" / "1.jpg").read_bytes(),
        "p2/other.jpg": (clean / "p3" / "2.jpg").read_bytes(),
        "p2/large.jpg": encode_jpeg(picture(77, 160)),
        "p3/softer.jpg": encode_jpeg(picture(13), quality=70),
        "p3/notes.txt": b"x",
    }
    for name, content in planted.items():
        (clean / name).write_bytes(content)
    (clean / "nobody").mkdir()
    (clean / "readme.md").write_text("x")
    found = lines(clean)
    expected = {
        "p0/cut.jpg": "damaged JPEG (Premature end",
        "p0/empty.jpg": "the file is empty",
        "p0/text.jpg": "not a decodable image",
        "p1/again.jpg": "the same bytes as p1/1.jpg",
        "p2/other.jpg": "the same bytes as p3/2.jpg, which is labeled as another person",
        "p3/2.jpg": "the same bytes as p2/other.jpg, which is labeled as another person",
        "p2/large.jpg": "160x160 pixels, most images have 112x112",
        "p3/softer.jpg": "nearly the same picture as p3/1.jpg",
        "p3/notes.txt": "not an image by its name",
        "nobody/": "a folder without images",
    }
    assert set(found) == set(expected)
    for where, reason in expected.items():
        assert found[where].startswith(reason), (where, found[where])


def test_an_expected_size(clean: Path) -> None:
    found = lines(clean, image_size=128)
    assert len(found) == 16
    assert found["p0/0.jpg"] == "112x112 pixels, expected 128x128"


def test_images_shared_with_a_test_set(clean: Path, tmp_path: Path) -> None:
    images = [encode_jpeg(picture(seed), quality=80) for seed in (200, 5, 201, 202)]
    write_pair_file(tmp_path / "test.bin", images, [True, False])
    found = lines(clean, pairs=[str(tmp_path / "test.bin")])
    assert list(found) == ["p1/1.jpg"]
    assert "nearly the same picture as image 1 of" in found["p1/1.jpg"]


def test_photographs_of_many_sizes_are_one_fault(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / f"p{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture(number, 100 + number // 2))
    (fault,) = [f for f in inspect_data(tmp_path).faults if f.kind == "size"]
    assert fault.reason.startswith("images have 4 sizes, the most frequent in 2 of 8; ")


def test_beyond_the_photograph() -> None:
    """The black corners of aligned faces are no part of a face, dark eyes are one."""
    image = np.full((112, 112, 3), 90, np.uint8)
    image[40:44, 30:40] = 0
    assert not beyond_photograph(image).any()
    image[:, :20] = 3
    image[100:, 60:] = (0, 8, 0)
    found = beyond_photograph(image)
    assert found[:, :20].all()
    assert found[100:, 60:].all()
    assert found.sum() == 112 * 20 + 12 * 52
    assert not beyond_photograph(np.zeros((112, 112, 3), np.uint8)).any()


def test_aligned_faces_with_black_corners_are_aligned(faces: Path, tmp_path: Path) -> None:
    """As `marginface align` makes them of photographs that end close to the face."""
    for person in sorted((faces / "dev").iterdir())[:20]:
        (tmp_path / "tight" / person.name).mkdir(parents=True)
        for path in sorted(person.iterdir()):
            image = cv2.imread(str(path))
            for side, rows in ((0, slice(0, 22)), (1, slice(96, 112))):
                image.swapaxes(0, side)[rows] = 0
            image[:, :14] = image[:, -14:] = 0
            cv2.imwrite(str(tmp_path / "tight" / person.name / path.name), image)
    assert not [f for f in inspect_data(tmp_path / "tight").faults if f.kind == "alignment"]


def test_swapped_colors_are_noted(tmp_path: Path) -> None:
    for number in range(6):
        skin = np.full((112, 112, 3), (200 - 5 * number, 150, 120), np.uint8)
        path = tmp_path / "faces" / f"p{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), skin)  # written as if RGB were BGR
    notes = inspect_data(tmp_path / "faces").notes
    assert any("red and blue are probably swapped" in note for note in notes)


def test_a_record_file(tmp_path: Path) -> None:
    images = [encode_jpeg(picture(seed)) for seed in range(4)]
    write_recordio(tmp_path / "rec", [*images, b"broken"], [0, 0, 1, 1, 2])
    found = lines(tmp_path / "rec")
    assert found == {"record 5 of train.rec": "not a decodable image (6 bytes)"}


def test_the_command(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (clean / "p0" / "empty.jpg").write_bytes(b"")
    done = marginface("inspect-data", "faces")
    assert done.exit_code == 1
    assert "p0/empty.jpg: the file is empty (0 bytes)" in done.stdout.splitlines()
    (folder,) = (tmp_path / "logs" / "inspect").iterdir()
    content = json.loads((folder / "inspect-data.json").read_text())
    assert content["counts"]["images"] == 17
    assert {
        "kind": "damaged",
        "where": "p0/empty.jpg",
        "reason": "the file is empty (0 bytes)",
    } in (content["faults"])
    page = (folder / "inspect-data.html").read_text()
    assert "p0/empty.jpg" in page
    assert "http" not in page.split("<body>")[1], "no external resources"
    missing = marginface("inspect-data", "absent")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr.strip().splitlines()[-1] == "error: no file or folder absent"


class TestDuplicates:
    """Against all pairs."""

    def test_near_pairs(self) -> None:
        rng = np.random.default_rng(0)
        phash = rng.integers(0, 256, (300, 32), np.uint8)
        for copy, original, flips in ((250, 3, 0), (251, 4, 12), (252, 5, 13), (253, 6, 7)):
            bits = np.unpackbits(phash[original])
            bits[rng.permutation(256)[:flips]] ^= 1
            phash[copy] = np.packbits(bits)
        there = np.ones(300, bool)
        there[6] = False
        found = near_duplicates(phash, there)
        distance = np.bitwise_count(phash[:, None] ^ phash[None]).sum(2)
        close = np.argwhere(np.triu(distance <= 12, 1) & there & there[:, None])
        assert found.tolist() == close.tolist() == [[3, 250], [4, 251]]

    def test_exact_groups(self) -> None:
        sha = np.array([[1], [2], [1], [3], [2], [1], [0]], np.uint8)
        assert exact_duplicates(sha, sha[:, 0] > 0) == [[0, 2, 5], [1, 4]]


class TestTemplate:
    """The drawing finds itself."""

    def test_on_the_template(self) -> None:
        fit = fit_template(template_face())
        assert fit.is_aligned
        assert fit.correlation == pytest.approx(1)
        assert fit.offset == 0

    @pytest.mark.parametrize("place", [(1.25, 0, 8, -8), (0.7, 0, 0, 0), (1.0, 20, 0, 0)])
    def test_elsewhere(self, place: tuple[float, float, float, float]) -> None:
        scale, turn, right, down = place
        matrix = cv2.getRotationMatrix2D((55.5, 55.5), turn, scale)
        matrix[:, 2] += right, down
        fit = fit_template(cv2.warpAffine(template_face(), matrix, (112, 112)))
        assert not fit.is_aligned
        assert (fit.scale, fit.turn, fit.right, fit.down) == place

    def test_noise_is_no_face(self) -> None:
        assert not fit_template(np.random.default_rng(0).normal(size=(112, 112))).is_aligned


class TestPeople:
    """Embeddings made up: identities far apart, images near their identity."""

    def made_up(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        centers = normalize(torch.randn(20, 64, generator=generator))
        labels = torch.arange(20).repeat_interleave(8)
        noise = 0.05 * torch.randn(160, 64, generator=generator)
        return normalize(centers[labels] + noise), labels

    def test_wrong_labels_are_found(self) -> None:
        embeddings, labels = self.made_up()
        labels[17] = 9  # an image of 2
        stranger = normalize(torch.randn(64, generator=torch.Generator().manual_seed(1)), dim=0)
        embeddings[40] = stranger
        found = {s.image: s for s in label_suspects(embeddings, labels, 20)}
        assert set(found) == {17, 40}
        assert found[17].nearest == 2
        assert found[17].other > 0.8 > 0.5 > found[17].own

    def test_a_clean_set_has_none(self) -> None:
        embeddings, labels = self.made_up()
        assert label_suspects(embeddings, labels, 20) == []

    def test_one_person_under_two_names(self) -> None:
        embeddings, _labels = self.made_up()
        centers = embeddings[::8]
        assert alike_identities(centers) == []
        both = torch.cat([centers, embeddings[3 * 8 + 1][None]])
        assert [(p.first, p.second) for p in alike_identities(both)] == [(3, 20)]
        assert [p.second for p in alike_identities(centers, embeddings[41:42])] == [0]


def test_a_checkpoint_is_needed_whole(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        inspect_data(clean, checkpoint=tmp_path / "absent.ckpt")


@pytest.fixture
def aligned(faces: Path, tmp_path: Path) -> Path:
    """60 identities of real aligned faces."""
    root = tmp_path / "real"
    for person in sorted((faces / "train").iterdir())[:60]:
        shutil.copytree(person, root / person.name)
    return root


@pytest.mark.long
def test_unaligned_crops(aligned: Path, faces: Path, tmp_path: Path) -> None:
    """An identity of loose crops is a fault; most of five single moved crops are suspected."""
    (aligned / "loose").mkdir()
    for number, path in enumerate(sorted((faces / "ijb_style" / "loose_crop").iterdir())[:12]):
        crop = cv2.resize(cv2.imread(str(path)), (112, 112), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(aligned / "loose" / f"{number}.jpg"), crop)
    people = sorted(path for path in aligned.iterdir() if path.name != "loose")
    planted = set()
    for number, (turn, right, down) in enumerate(
        [(90, 0, 0), (-90, 0, 0), (0, 25, 0), (0, 0, 25), (40, 15, 10)]
    ):
        matrix = cv2.getRotationMatrix2D((55.5, 55.5), turn, 1)
        matrix[:, 2] += right, down
        person = people[7 + number]
        crop = cv2.imread(str(sorted(person.iterdir())[0]))
        cv2.imwrite(str(person / "moved.jpg"), cv2.warpAffine(crop, matrix, (112, 112)))
        planted.add(f"{person.name}/moved.jpg")
    findings = inspect_data(aligned)
    faults = [f.where for f in findings.faults if f.kind == "alignment"]
    assert "loose" in faults
    assert {f.split("/")[0] for f in faults} == {"loose"}
    suspicious = {f.where for f in findings.suspicions}
    assert len(planted & suspicious) >= 3, suspicious
    assert len(suspicious - planted) < 10
    assert findings.fit is not None
    assert findings.fit.is_aligned


def test_a_set_off_the_template(faces: Path, tmp_path: Path) -> None:
    for person in sorted((faces / "dev").iterdir())[:20]:
        (tmp_path / "loose" / person.name).mkdir(parents=True)
        for path in sorted(person.iterdir()):
            small = cv2.resize(cv2.imread(str(path)), (75, 75), interpolation=cv2.INTER_AREA)
            loose = cv2.copyMakeBorder(small, 18, 19, 18, 19, cv2.BORDER_REPLICATE)
            cv2.imwrite(str(tmp_path / "loose" / person.name / path.name), loose)
    findings = inspect_data(tmp_path / "loose")
    (fault,) = [f for f in findings.faults if f.kind == "alignment"]
    assert "the mean face is off the five-point template" in fault.reason


@pytest.mark.long
def test_a_checkpoint_finds_wrong_labels(tmp_path: Path) -> None:
    """Trained on some synthetic persons, asked about others, one image among the wrong ones."""
    run = subprocess.run(
        [
            *(sys.executable, "train.py", "trainer=cpu", "logger=csv", "callbacks.progress=null"),
            *("validate_untrained=false", "data.val_identities=0", "head.scale=32"),
            *("data.dataset.identities=150", "trainer.max_epochs=6", "data.num_workers=1"),
            f"paths.cache_dir={tmp_path}",
            f"hydra.run.dir={tmp_path / 'run'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    others = SyntheticFaces(tmp_path, identities=20, images_per_identity=20, seed=5)
    pack(others, tmp_path / "faces", "folder")
    people = sorted((tmp_path / "faces").iterdir())
    moved = sorted(people[3].iterdir())[:4]
    for path in moved:
        path.rename(people[11] / f"moved{path.name}")
    findings = inspect_data(tmp_path / "faces", checkpoint=tmp_path / "run")
    suspects = [f.where for f in findings.suspicions if f.kind == "label"]
    planted = {f"{people[11].name}/moved{path.name}" for path in moved}
    assert len(planted & set(suspects[:12])) >= 3, suspects[:12]


@pytest.mark.slow
def test_the_page_in_a_browser(faces: Path, tmp_path: Path) -> None:
    """Headless Chromium draws it: the title dark on light, the pictures where they belong."""
    for person in sorted((faces / "train").iterdir())[:15]:
        shutil.copytree(person, tmp_path / "real" / person.name)
    page = write_inspection(inspect_data(tmp_path / "real"), tmp_path / "report")
    drawn = screenshot(page)
    assert (drawn[:20] > 240).mean() > 0.9, "a light page"
    assert (drawn[30:90] < 100).any(), "a dark title"
    colorful = (drawn.max(2).astype(int) - drawn.min(2) > 40).mean()
    assert 0.05 < colorful < 0.6, "faces cover part of the page"
