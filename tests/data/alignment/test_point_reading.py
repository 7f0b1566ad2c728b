"""Points of a file are read in the right order and pixels, or refused with figures."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.commands import marginface
from helpers.pictures import encoded, picture
from marginface.data.alignment.detectors import LandmarkFile
from marginface.data.alignment.mean_face import LEAST_LIKENESS, likeness, template_face
from marginface.data.alignment.photos import align_photos
from marginface.data.alignment.point_reading import as_shown, check_frame, in_order, median_misfit
from marginface.data.alignment.template import TEMPLATE, similarity
from marginface.data.images import ANY_IMAGE, ImageRules
from marginface.utils.errors import InputError

Change = Callable[[np.ndarray], np.ndarray]
# How points of shape (5, 2) get into a file in a wrong way, and how the message calls that.
WRONG_ORDERS: dict[str, tuple[Change, str]] = {
    "xxyy": (lambda p: p.T.reshape(5, 2), "as x1 ... x5 y1 ... y5 only .* use --order xxyy"),
    "yxyx": (lambda p: p[:, ::-1], "as y1 x1 ... y5 x5 only"),
    "yyxx": (lambda p: p[:, ::-1].T.reshape(5, 2), "as y1 ... y5 x1 ... x5 only"),
    "mirrored": (lambda p: p[[1, 0, 2, 4, 3]], "of right eye, left eye, nose, right mouth corner"),
    "eyes": (lambda p: p[[1, 0, 2, 3, 4]], "of right eye, left eye, nose, left mouth corner"),
    "mouth": (lambda p: p[[0, 1, 2, 4, 3]], "of left eye, right eye, nose, right mouth corner"),
    "nose first": (lambda p: p[[2, 0, 1, 3, 4]], "of nose, left eye, right eye, left mouth"),
    "fractions": (lambda p: p / 1000, "no coordinate is larger than 0.*: they are fractions"),
}


def some_faces(number: int, turn: float = 8.0) -> list[np.ndarray]:
    """Faces about as far off the template as real ones, turned and placed at random."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        angle, scale = np.deg2rad(rng.normal(0, turn)), rng.uniform(0.5, 3)
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        found.append((TEMPLATE + rng.normal(0, 2, (5, 2))) @ matrix.T + rng.uniform(50, 300, 2))
    return found


def test_right_points_stay_as_they_are() -> None:
    right = some_faces(40)
    assert median_misfit(right) < 4
    for order in ("auto", "xyxy"):
        for before, after in zip(right, in_order(right, order, "it"), strict=True):
            assert (before == after).all()


def test_points_without_an_error_are_right() -> None:
    """Rounding fits some other order better by any factor."""
    turned = TEMPLATE @ np.array([[1.1, 0.2], [-0.2, 1.1]]) + 60
    in_order([turned + 3 * n for n in range(20)], "auto", "it")
    check_frame(np.stack([TEMPLATE] * 3), np.full(3, 6), "it")


@pytest.mark.parametrize("kind", WRONG_ORDERS)
@pytest.mark.parametrize("number", [6, 40])
def test_wrong_orders_are_refused(kind: str, number: int) -> None:
    change, message = WRONG_ORDERS[kind]
    wrong = [change(points) for points in some_faces(number)]
    with pytest.raises(InputError, match=message):
        in_order(wrong, "auto", "points.csv")
    assert all((a == b).all() for a, b in zip(in_order(wrong, "xyxy", ""), wrong, strict=True))


def test_all_x_first_is_read_when_asked_for() -> None:
    right = some_faces(6)
    again = in_order([points.T.reshape(5, 2) for points in right], "xxyy", "it")
    np.testing.assert_allclose(np.stack(again), np.stack(right))


def test_faces_on_their_side_are_no_other_order() -> None:
    in_order([points[:, ::-1] * [1, -1] for points in some_faces(40)], "auto", "it")


def turned_photo(folder: Path, name: str, orientation: int) -> np.ndarray:
    """Writes a photograph with an EXIF orientation; returns where its face is stored."""
    points = 2 * TEMPLATE + 40
    matrix = similarity(TEMPLATE, points)
    shown = picture(3, 320)[:300]
    cv2.warpAffine(picture(orientation), matrix, (320, 300), shown, cv2.INTER_CUBIC, 5)
    stored = shown
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation >= 5:
        stored = stored.transpose(1, 0, 2)
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(np.ascontiguousarray(stored), "JPEG", exif=exif, quality=95)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    assert ANY_IMAGE.decode(content).shape == shown.shape
    x, y = points.T
    if orientation in (3, 4, 7, 8):
        y = 299 - y
    if orientation in (2, 3, 6, 7):
        x = 319 - x
    return np.column_stack([y, x] if orientation >= 5 else [x, y])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_points_in_stored_pixels(orientation: int, tmp_path: Path) -> None:
    lines = []
    for number in range(3):
        name = f"ann/{number}.jpg"
        points = turned_photo(tmp_path / "photos", name, orientation)
        lines.append(",".join([name, *(f"{value:.3f}" for value in points.ravel())]))
    (tmp_path / "points.csv").write_text("\n".join(lines))
    # Mirrored faces are in another order, which is looked at first.
    order = "xyxy" if orientation in (2, 4, 5, 7) else "auto"
    with pytest.raises(InputError, match=r"3 photographs have an EXIF .* use --exif ignore"):
        LandmarkFile(tmp_path / "points.csv", tmp_path / "photos", order=order)
    if order == "auto":
        stored = LandmarkFile(tmp_path / "points.csv", tmp_path / "photos", frame="ignore")
        align_photos(tmp_path / "photos", tmp_path / "faces", stored, exif="ignore")
        face = ImageRules().decode((tmp_path / "faces" / "ann" / "0.jpg").read_bytes())
        assert abs(face.astype(int) - picture(orientation))[6:-6, 6:-6].mean() < 8


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_stored_face_is_upright_as_shown(orientation: int, tmp_path: Path) -> None:
    stored = turned_photo(tmp_path, "1.jpg", orientation)
    shown = as_shown(stored, orientation)
    np.testing.assert_allclose(shown - shown[0], 2 * (TEMPLATE - TEMPLATE[0]), atol=1e-9)


def test_points_that_fit_neither_way_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    aslant = [points @ np.array([[1, 1], [-1, 1]]) for points in some_faces(8, turn=2)]
    check_frame(np.stack(aslant), np.full(8, 6), "points.csv")
    assert "8 photographs have an EXIF orientation" in capsys.readouterr().err
    check_frame(np.stack(some_faces(8)), np.full(8, 6), "points.csv")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("side", [112, 128, 224])
def test_likeness_of_a_mean_face(side: int) -> None:
    face = cv2.resize(100 + 80 * template_face(), (112, 112))
    if side == 128:
        face = cv2.copyMakeBorder(face, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    rgb = np.repeat(cv2.resize(face, (side, side))[..., None], 3, axis=2)
    assert likeness(rgb) > 0.9
    assert likeness(rgb[::-1].copy()) < LEAST_LIKENESS


# Of a whole file of real faces: what is refused, and what is written with a warning.
REAL: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]] = {
    "xxyy": (lambda p, size: p.transpose(0, 2, 1).reshape(-1, 5, 2), "error"),
    "yxyx": (lambda p, size: p[..., ::-1], "error"),
    "mirrored": (lambda p, size: p[:, [1, 0, 2, 4, 3]], "error"),
    "eyes": (lambda p, size: p[:, [1, 0, 2, 3, 4]], "error"),
    "half": (lambda p, size: p / 2, "warning"),
    "double": (lambda p, size: p * 2, "warning"),
    "all to 256": (lambda p, size: p * (256 / size.max(1))[:, None, None], "warning"),
    "from the box": (lambda p, size: p - p.min(1, keepdims=True) + 10, "warning"),
    "of the next": (lambda p, size: np.roll(p, 1, 0), "warning"),
    "fractions": (lambda p, size: p / size[:, None, :], "error"),
    "right": (lambda p, size: p, "nothing"),
}


@pytest.mark.parametrize("kind", REAL)
def test_real_points_in_wrong_ways(faces: Path, kind: str, tmp_path: Path) -> None:
    change, outcome = REAL[kind]
    root = faces / "ijb_style"
    rows = [
        line.split() for line in (root / "meta" / "dev_name_5pts_score.txt").open().readlines()[::8]
    ]
    (tmp_path / "photos").mkdir()
    for name, *_ in rows:
        (tmp_path / "photos" / name).symlink_to(root / "loose_crop" / name)
    points = np.array([row[1:11] for row in rows], float).reshape(-1, 5, 2)
    sizes = np.array([cv2.imread(str(root / "loose_crop" / row[0])).shape[1::-1] for row in rows])
    lines = [
        " ".join([row[0], *(f"{value:.5f}" for value in p.ravel())])
        for row, p in zip(rows, change(points, sizes), strict=True)
    ]
    (tmp_path / "points.txt").write_text("\n".join(lines))
    (tmp_path / "who.txt").write_text("".join(f"{row[0]} x\n" for row in rows))
    done = marginface(
        "align", str(tmp_path / "photos"), str(tmp_path / "out"), "--out", str(tmp_path / "report"),
        "--landmarks", str(tmp_path / "points.txt"), "--identities", str(tmp_path / "who.txt"),
    )  # fmt: skip
    assert done.exit_code == (2 if outcome == "error" else 0)
    assert (tmp_path / "out").exists() == (outcome != "error")
    assert (f"{outcome}: " in done.stderr) == (outcome != "nothing")
    figures = ("correlation with one is", "125 of 130 photographs were rejected for one reason")
    assert any(text in done.stderr for text in figures) == (outcome == "warning")
