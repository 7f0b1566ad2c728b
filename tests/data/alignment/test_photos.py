"""Alignment against another solution, every kind of landmark file, and faults."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.commands import marginface
from helpers.pictures import picture
from marginface.data.alignment.detectors import LandmarkFile, YuNet, from_function
from marginface.data.alignment.landmarks import DetectedFace, for_photos, read_landmarks
from marginface.data.alignment.photos import AlignResult, align_photos
from marginface.data.alignment.template import (
    TEMPLATE,
    Points,
    align,
    check_points,
    similarity,
    template,
)
from marginface.data.images import encode_jpeg
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import one_writer_of


def umeyama(source: Points, target: Points) -> np.ndarray:
    """The solution by singular values, as in the paper."""
    center, goal = source.mean(0), target.mean(0)
    covariance = (target - goal).T @ (source - center) / len(source)
    u, s, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ np.diag(sign) @ vt
    scale = (s * sign).sum() / (source - center).var(0).sum()
    return np.column_stack([scale * turn, goal - scale * turn @ center])


@given(st.integers(0, 10_000))
def test_similarity_is_umeyama_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, rng.uniform(1, 100), (5, 2)) + rng.normal(0, 50, 2)
    np.testing.assert_allclose(similarity(points, TEMPLATE), umeyama(points, TEMPLATE), atol=1e-8)


def placed(scale: float, degrees: float, right: float, down: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[a, -b, right], [b, a, down]])


def render_face(face: np.ndarray, matrix: np.ndarray, side: int = 300) -> tuple[np.ndarray, Points]:
    """An aligned face put somewhere in a larger picture, and where its five points are."""
    canvas = picture(99, side) // 3
    cv2.warpAffine(face, matrix, (side, side), canvas, cv2.INTER_CUBIC, cv2.BORDER_TRANSPARENT)
    return canvas, TEMPLATE @ matrix[:, :2].T + matrix[:, 2]


def test_a_face_comes_back() -> None:
    face = picture(5)
    photo, points = render_face(face, placed(1.4, 20, 60, 40))
    aligned = align(photo, points)
    inside = (slice(4, -4), slice(4, -4))
    assert abs(aligned.astype(int) - face)[inside].mean() < 3


def test_sizes() -> None:
    np.testing.assert_allclose(template(224), 2 * TEMPLATE)
    np.testing.assert_allclose(template(128), TEMPLATE + np.array([8, 0]))
    np.testing.assert_allclose(template(256), 2 * (TEMPLATE + np.array([8, 0])))
    for size in (0, 100, -112):
        with pytest.raises(InputError, match=f"multiple of 112 or 128 pixels, got {size}"):
            template(size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[[1, 0, 2, 4, 3]], "left and right are swapped"),
        (lambda p: p * 0.05, "the face is small"),
        (lambda p: p + np.array([400, 0]), r"outside the image \(at 438, 52 of 200x200\)"),
        (lambda p: p + np.array([[0, 0], [0, 0], [90, -60], [0, 0], [0, 0]]), "fit no face"),
        (lambda p: np.where(p == p[0, 0], np.nan, p), "not five pairs of numbers"),
        (lambda p: p[:4], "not five pairs"),
    ],
)
def test_points_that_are_no_face(change: Callable[[Points], Points], message: str) -> None:
    check_points(TEMPLATE, 200, 200, 10)
    with pytest.raises(InputError, match=message):
        check_points(change(TEMPLATE), 200, 200, 10)


def test_a_profile_is_a_face() -> None:
    profile = np.array([(60, 52), (58, 51), (85, 72), (62, 92), (61, 92)], float)
    check_points(profile, 112, 112, 10)


NUMBERS = " ".join(f"{v:.3f}" for v in TEMPLATE.ravel())
LINES = {
    "insightface": f"a/1.jpg {NUMBERS} 0.998\nb/2.jpg {NUMBERS}\n",
    "celeba": (
        "2\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y "
        f"rightmouth_x rightmouth_y\na/1.jpg {NUMBERS}\nb/2.jpg {NUMBERS}\n"
    ),
    "csv": f"a/1.jpg,{NUMBERS.replace(' ', ',')}\nb/2.jpg,{NUMBERS.replace(' ', ',')}\n",
    "csv with headings": (
        "path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5,identity,score\n"
        f"a/1.jpg,{NUMBERS.replace(' ', ',')},ann,0.5\nb/2.jpg,{NUMBERS.replace(' ', ',')},bo,0.9\n"
    ),
    "lst": "".join(
        f"0\t{name}\t{label}\t1\t2\t30\t40\t"
        + "\t".join(f"{v:.3f}" for v in TEMPLATE.T.ravel())
        + "\n"
        for name, label in (("a/1.jpg", 7), ("b/2.jpg", 8))
    ),
}


@pytest.mark.parametrize("kind", LINES)
def test_landmark_files(kind: str, tmp_path: Path) -> None:
    (tmp_path / "landmarks").write_text(LINES[kind])
    faces = read_landmarks(tmp_path / "landmarks")
    assert list(faces) == ["a/1.jpg", "b/2.jpg"]
    for (face,) in faces.values():
        np.testing.assert_allclose(face.points, TEMPLATE, atol=1e-3)
    one, other = faces["a/1.jpg"][0], faces["b/2.jpg"][0]
    assert (one.identity, other.identity) == {
        "lst": ("7", "8"),
        "csv with headings": ("ann", "bo"),
    }.get(kind, (None, None))
    assert one.score == {"insightface": 0.998, "csv with headings": 0.5}.get(kind)


def test_landmark_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no landmark file"):
        read_landmarks(tmp_path / "absent")
    for text, message in (
        ("a.jpg 1 2 3\n", "line 1 does not hold a name and five points"),
        (f"a.jpg {NUMBERS}\nb.jpg {NUMBERS[:-8]} x\n", "line 2 does not hold"),
        ("", "holds no faces"),
    ):
        (tmp_path / "landmarks").write_text(text)
        with pytest.raises(InputError, match=message):
            read_landmarks(tmp_path / "landmarks")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two persons with two photographs each, one without landmarks, one damaged; a stray one."""
    root, lines = tmp_path / "photos", ["path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"]
    for number, name in enumerate(["ann/1.jpg", "ann/2.png", "bo/1.jpg", "bo/3.jpg", "stray.jpg"]):
        photo, points = render_face(picture(number), placed(1.2, 5 * number, 60, 40))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_jpeg(photo))
        lines.append(",".join([name, *(f"{v:.2f}" for v in points.ravel())]))
    (root / "bo" / "2.jpg").write_bytes(encode_jpeg(picture(7, 200)))
    (root / "bo" / "3.jpg").write_bytes(b"no image")
    (tmp_path / "landmarks.csv").write_text("\n".join(lines) + "\n")
    return root


def test_align_photos(photos: Path, tmp_path: Path) -> None:
    finder = LandmarkFile(tmp_path / "landmarks.csv", photos)
    result = align_photos(photos, tmp_path / "faces", finder)
    assert result.aligned == {
        "ann/1.jpg": "ann/1.jpg",
        "ann/2.png": "ann/2.jpg",
        "bo/1.jpg": "bo/1.jpg",
    }
    assert result.rejected["bo/2.jpg"] == "the landmark file does not name it"
    assert result.rejected["bo/3.jpg"].startswith("not a decodable image")
    assert result.rejected["stray.jpg"].startswith("no identity: it is not in a folder")
    for number, name in enumerate(["ann/1.jpg", "ann/2.jpg", "bo/1.jpg"]):
        aligned = cv2.imread(str(tmp_path / "faces" / name))[..., ::-1].astype(int)
        assert abs(aligned - picture(number))[6:-6, 6:-6].mean() < 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces", "landmarks.csv", "photos"]
    named = align_photos(
        photos,
        tmp_path / "named",
        finder,
        identities={"stray.jpg": "cy"},
        size=128,
    )
    assert named.aligned["stray.jpg"] == "cy/stray.jpg"
    assert cv2.imread(str(tmp_path / "named" / "cy" / "stray.jpg")).shape == (128, 128, 3)


def test_align_photos_faults(photos: Path, tmp_path: Path) -> None:
    finder = LandmarkFile(tmp_path / "landmarks.csv", photos)
    with pytest.raises(MissingInputError, match="no folder"):
        align_photos(tmp_path / "absent", tmp_path / "faces", finder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no photographs below"):
        align_photos(tmp_path / "empty", tmp_path / "faces", finder)
    with (
        one_writer_of(tmp_path / "faces"),
        pytest.raises(InputError, match="another process is writing .*faces; wait for it"),
    ):
        align_photos(photos, tmp_path / "faces", from_function("helpers.detectors:detect"))
    with pytest.raises(InputError, match="photos exists; choose another name"):
        align_photos(photos, photos, finder)
    with pytest.raises(InputError, match="no face was aligned; the first photograph, ann/1.jpg"):
        align_photos(photos, tmp_path / "faces", lambda rgb, path: [])
    assert not (tmp_path / "faces").exists()
    same = {"ann/1.jpg": "x", "bo/1.jpg": "x"}
    result = align_photos(photos, tmp_path / "faces", finder, identities=same)
    assert sum("became x/1.jpg already" in reason for reason in result.rejected.values()) == 1
    bad = {"ann/1.jpg": "../x"}
    result = align_photos(photos, tmp_path / "more", finder, identities=bad)
    assert result.rejected["ann/1.jpg"] == "identity '../x' is not a name of a folder"


def test_names_without_a_folder() -> None:
    """A name stands for a photograph only where nothing else can be meant."""
    photos = ["ann/1.jpg", "bo/1.jpg", "bo/2.jpg"]
    assert for_photos({"ann/1.jpg": 1}, photos) == {"ann/1.jpg": 1}
    assert for_photos({"1.jpg": 1, "2.jpg": 2}, photos) == {"bo/2.jpg": 2}
    with pytest.raises(InputError, match="names none of the 3 photographs: .* 'x/2.jpg'"):
        for_photos({"x/2.jpg": 2}, photos)


def test_photographs_with_folders_that_the_file_does_not_name() -> None:
    photos = ["/home/me/faces/ann/1.jpg", "/home/me/faces/bo/1.jpg", "/home/me/faces/bo/2.png"]
    named = {"ann/1.jpg": 1, "bo/1.jpg": 2, "bo/2": 3}
    assert for_photos(named, photos) == dict(zip(photos, [1, 2, 3], strict=True))
    assert for_photos({"faces/bo/1.jpg": 2}, photos) == {photos[1]: 2}
    assert for_photos({"1.jpg": 1, "2": 3}, photos) == {photos[2]: 3}, "two photographs are 1.jpg"
    relative = ["faces/ann/1.jpg", "faces/bo/1.jpg"]
    assert for_photos(named, relative) == dict(zip(relative, [1, 2], strict=True))
    twins = ["p/a.jpg", "p/a.png"]
    assert for_photos({"p/a": 1, "p/a.png": 2}, twins) == {"p/a.jpg": 1, "p/a.png": 2}
    with pytest.raises(InputError, match="names none"):
        for_photos({"p/a": 1}, twins)
    assert for_photos({"1": 1, "faces/bo/1.jpg": 2}, relative) == {relative[0]: 1, relative[1]: 2}


def test_a_detector_that_fails_on_some(photos: Path, tmp_path: Path) -> None:
    result = align_photos(
        photos, tmp_path / "faces", from_function("helpers.detectors:detect_badly")
    )
    reasons = list(result.rejected.values())
    assert reasons.count("the detector failed (IndexError: no face)") >= 1
    assert result.aligned


def test_detectors(photos: Path, tmp_path: Path) -> None:
    finder = from_function("helpers.detectors:detect")
    result = align_photos(photos, tmp_path / "faces", finder)
    assert len(result.aligned) == 4
    assert len(result.several) == 4
    wrong = from_function("helpers.detectors:detect_wrongly")
    with pytest.raises(InputError, match=r"returned points of shape \(4, 2\), expected"):
        align_photos(photos, tmp_path / "none", wrong)
    for spec in ("helpers.detectors", "helpers.detectors:nothing", "no_such_module:f"):
        with pytest.raises(InputError, match="expected package.module:function"):
            from_function(spec)


def test_yunet_faults(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="download face_detection_yunet"):
        YuNet(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="bad.onnx is not a YuNet model"):
        YuNet(tmp_path / "bad.onnx")


def test_yunet_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's rows: box, five points, score, at a long side of 640 pixels.

    Without the model, which nobody may ship here.
    """

    class Detector:
        def setInputSize(self, size: tuple[int, int]) -> None:
            assert size in ((640, 480), (640, 640))

        def detect(self, bgr: np.ndarray) -> tuple[int, np.ndarray | None]:
            if not bgr.any():  # whether it is a YuNet at all
                return 1, None
            assert bgr[0, 0].tolist() == [3, 2, 1]
            assert bgr.shape == (480, 640, 3)
            points = 4 * (TEMPLATE + 0.5) - 0.5
            row = np.concatenate([[1, 2, 30, 40], points.ravel(), [0.8]])
            return 1, row[None].astype(np.float32)

    class Maker:
        @staticmethod
        def create(*arguments: object) -> Detector:
            return Detector()

    monkeypatch.setattr(cv2, "FaceDetectorYN", Maker)
    (tmp_path / "model.onnx").write_bytes(b"")
    rgb = np.full((120, 160, 3), (1, 2, 3), np.uint8)
    (face,) = YuNet(tmp_path / "model.onnx")(rgb, "a.jpg")
    assert isinstance(face, DetectedFace)
    np.testing.assert_allclose(face.points, TEMPLATE, atol=1e-3)
    assert face.score == pytest.approx(0.8)


def test_files_that_are_not_looked_at_are_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bo" / "scan.pdf").write_bytes(b"II")
    (photos / "bo" / "phone.HEIC").write_bytes(b"")
    (photos / "bo" / "._1.jpg").write_bytes(b"")
    (photos / ".DS_Store").write_bytes(b"")
    detector = LandmarkFile(tmp_path / "landmarks.csv", photos)
    align_photos(photos, tmp_path / "out", detector)
    printed = capsys.readouterr().err
    assert "2 files were not looked at" in printed
    assert "bo/phone.HEIC, bo/scan.pdf" in printed
    assert ".DS_Store" not in printed


def test_photographs_without_a_face(photos: Path, tmp_path: Path) -> None:
    """Their center, for protocols that need every image; the mean face is of the others."""
    finder = LandmarkFile(tmp_path / "landmarks.csv", photos)
    result = align_photos(photos, tmp_path / "faces", finder, missing="center")
    assert result.centered == ["bo/2.jpg"]
    assert result.aligned["bo/2.jpg"] == "bo/2.jpg"
    assert "bo/3.jpg" in result.rejected  # damaged
    center = cv2.imread(str(tmp_path / "faces" / "bo" / "2.jpg"))[..., ::-1].astype(int)
    expected = cv2.resize(picture(7, 200), (112, 112), interpolation=cv2.INTER_AREA)
    assert abs(center - expected).mean() < 5  # a JPEG
    without = align_photos(photos, tmp_path / "again", finder)
    assert result.mean is not None
    assert without.mean is not None
    np.testing.assert_array_equal(result.mean, without.mean)


def test_a_faulty_photograph_can_stop_all(photos: Path, tmp_path: Path) -> None:
    finder = LandmarkFile(tmp_path / "landmarks.csv", photos)
    with pytest.raises(InputError, match=r"photos/bo/3.jpg: not a decodable image"):
        align_photos(photos, tmp_path / "faces", finder, faulty="stop")
    assert not (tmp_path / "faces").exists()


class YuNetOfPlaces(YuNet):
    """Finds one face in every part of a photograph that holds it; pixels tell where the part is."""

    def __init__(self, face: Points, tiles: int) -> None:
        self.face, self._tiles, self.size = face, tiles, 640
        self.parts: list[tuple[int, int]] = []

    def _in_part(self, rgb: np.ndarray, long_side: int) -> list[DetectedFace]:
        self.parts.append(rgb.shape[:2])
        top, left = rgb[0, 0, :2].astype(int) * 4
        points = self.face - [left, top]
        inside = (points > 0).all() and (points < rgb.shape[1::-1]).all()
        if not inside or rgb.shape[:2] == (480, 640):  # too small in the whole photograph
            return []
        return [DetectedFace(points, 0.9 - 0.01 * len(self.parts))]


def test_tiles_for_crowds(tmp_path: Path) -> None:
    """A face is found in the parts that hold it, and counted once."""
    face = TEMPLATE * 0.1 + np.array([520, 150])
    where = np.stack([*np.mgrid[:480, :640] // 4, np.zeros((480, 640), int)], axis=2)
    photo = where.astype(np.uint8)
    assert YuNetOfPlaces(face, 1)(photo, "a.jpg") == []
    yunet = YuNetOfPlaces(face, 3)
    (found,) = yunet(photo, "a.jpg")
    np.testing.assert_allclose(found.points, face, atol=4)  # the place is known to 4 pixels
    assert len(yunet.parts) == 2 + 9  # the whole at two sizes
    assert yunet.parts[6] == (200, 268)  # the middle: a third and two eighths of one
    with pytest.raises(InputError, match="--tiles must be 1 to 16, got 0"):
        YuNet(tmp_path / "any", tiles=0)


def test_the_command(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = marginface("align", "photos", "faces", "--landmarks", "landmarks.csv")
    assert done.exit_code == 0, done.stderr
    assert "1 rejected: the landmark file does not name it" in done.stdout
    assert "3 faces written to faces, 3 photographs rejected; report logs/align/" in done.stdout
    (page,) = (tmp_path / "logs" / "align").glob("*/align.html")
    assert "bo/2.jpg" in page.read_text()
    assert page.with_suffix(".json").is_file()
    for option in ("--missing", "--faulty", "--exif", "--order"):
        wrong = marginface("align", "photos", "y", "--landmarks", "landmarks.csv", option, "x")
        assert wrong.exit_code == 2
        assert f"unknown {option} 'x'" in wrong.stderr
    center = marginface(
        "align", "photos", "z", "--landmarks", "landmarks.csv", "--missing", "center"
    )
    assert "1 without a face: the center of the photograph" in center.stdout
    both = marginface("align", "photos", "x", "--landmarks", "landmarks.csv", "--detector", "a:b")
    assert (both.exit_code, both.stdout) == (2, "")
    assert "give one of --landmarks, --yunet and --detector" in both.stderr


def test_real_faces(faces: Path, tmp_path: Path) -> None:
    """Loose crops and their points give what sits on the template."""
    from marginface.data import open_faces
    from marginface.data.alignment.mean_face import fit_template
    from marginface.data.images import ImageRules
    from marginface.inspection.measurements import measure

    root = faces / "ijb_style"
    who = dict(line.split()[:2] for line in (root / "meta" / "dev_face_tid_mid.txt").open())
    finder = LandmarkFile(root / "meta" / "dev_name_5pts_score.txt", root / "loose_crop")
    result = align_photos(root / "loose_crop", tmp_path / "faces", finder, identities=who)
    assert not result.rejected
    facts = measure(open_faces(tmp_path / "faces"), ImageRules(), lambda done, total: None)
    assert fit_template(facts.gray).is_aligned


def test_reasons_of_one_kind_are_counted_together() -> None:
    several = {"a": "90x80 pixels", "b": "7x8 pixels", "c": "uint16 pixels, expected 8 bits"}
    assert AlignResult(rejected=several).by_reason() == {
        "#x# pixels": ["a", "b"],
        "uint16 pixels, expected # bits": ["c"],
    }
