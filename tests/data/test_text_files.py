"""Text files made elsewhere: read rightly, or refused with the reason."""

from pathlib import Path

import numpy as np
import pytest

from marginface.data import ListDataset
from marginface.data.alignment.landmarks import for_photos, read_landmarks
from marginface.data.alignment.template import TEMPLATE, misfit
from marginface.data.formats.recordio.format import read_index
from marginface.data.formats.shards import read_shard
from marginface.data.image_files import is_hidden
from marginface.data.pairs.files import read_pair_list
from marginface.utils.errors import InputError

THREE = [("x/a.jpg", "0"), ("x/b.jpg", "0"), ("y/c d.jpg", "1")]
# What is in the file, and below which folder its images are.
LISTS = {
    "bom": "\ufeffpath,label\nx/a.jpg,0\nx/b.jpg,0\ny/c d.jpg,1\n",
    "crlf": "path,label\r\nx/a.jpg,0\r\nx/b.jpg,0\r\ny/c d.jpg,1\r\n",
    "quotes": 'path,label\n"x/a.jpg","0"\n"x/b.jpg",0\n"y/c d.jpg",1\n',
    "blanks_after_commas": "x/a.jpg, 0\nx/b.jpg, 0\ny/c d.jpg, 1\n",
    "semicolons": "file;id\nx/a.jpg;0\nx/b.jpg;0\ny/c d.jpg;1\n",
    "headings_and_more": "id,set,image_path\n0,1,x/a.jpg\n0,1,x/b.jpg\n1,2,y/c d.jpg\n",
    "index_of_pandas": ",path,label\n0,x/a.jpg,0\n1,x/b.jpg,0\n2,y/c d.jpg,1\n",
    "blanks_in_tab_files": "x/a.jpg\t0\nx/b.jpg\t0\ny/c d.jpg\t1\n",
    "blanks_in_blank_files": "x/a.jpg 0\nx/b.jpg 0\ny/c d.jpg 1\n",
    "blank_and_comment_lines": "# made by me\n\nx/a.jpg 0\n   \nx/b.jpg 0\n# more\ny/c d.jpg 1\n",
    "dot_prefix": "./x/a.jpg\t0\n./x/b.jpg\t0\n./y/c d.jpg\t1\n",
    "backslashes": "x\\a.jpg\t0\nx\\b.jpg\t0\ny\\c d.jpg\t1\n",
    "absolute_prefix": "/home/me/x/a.jpg,0\n/home/me/x/b.jpg,0\n/home/me/y/c d.jpg,1\n",
    "windows": "C:\\faces\\x\\a.jpg,0\nC:\\faces\\x\\b.jpg,0\nC:\\faces\\y\\c d.jpg,1\n",
    "latin_1": "pfad,label\nx/a.jpg,0\nx/b.jpg,0\ny/c d.jpg,1\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists(kind: str, tmp_path: Path) -> None:
    for name, _ in THREE:
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "list.csv").write_bytes(LISTS[kind].encode())
    faces = ListDataset(tmp_path / "list.csv", images=tmp_path / "faces")
    assert faces.labels.tolist() == [0, 0, 1]
    assert [faces.image_bytes(i).decode() for i in range(3)] == [name for name, _ in THREE]


WRONG_LISTS = {
    "0 x/a.jpg\n1 x/b.jpg\n": r"the labels look like images \('x/a.jpg'\).*other way round",
    "path,fold\nx/a.jpg,0\n": "none of its first 1 images is below",  # read as a label, not there
    "path,fold,part\nx/a.jpg,0,1\n": "no column label; expected path,label and got path,fold,part",
    "fold,id,part\n0,1,2\n": "no column path; expected path,label and got fold,id,part",
    "path,label\nx/a.jpg,\n": "line 2 lacks its label",
    "/elsewhere/b.jpg 0\n/elsewhere/c.jpg 1\n": r"none of its first 2 images is below .*images=",
}


@pytest.mark.parametrize("text", WRONG_LISTS)
def test_wrong_lists(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=WRONG_LISTS[text]):
        ListDataset(tmp_path / "list.txt")


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"PK\3\4\0\0")
    with pytest.raises(InputError, match="list.txt is not a text file"):
        ListDataset(tmp_path / "list.txt")


PAIRS = {
    "ours": "first,second,same\na.jpg,b.jpg,1\na.jpg,c.jpg,0\n",
    "bom_and_crlf": "\ufefffirst,second,same\r\na.jpg,b.jpg,1\r\na.jpg,c.jpg,0\r\n",
    "other_headings": "label,path2,path1\n1,b.jpg,a.jpg\n0,c.jpg,a.jpg\n",
    "index_of_pandas": ",img1,img2,issame\n0,a.jpg,b.jpg,True\n1,a.jpg,c.jpg,False\n",
    "no_headings": "a.jpg,b.jpg,1\na.jpg,c.jpg,0\n",
    "quotes": '"first","second","same"\n"a.jpg","b.jpg","1"\n"a.jpg","c.jpg","0"\n',
}


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs(kind: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS[kind])
    files, same = read_pair_list(tmp_path / "pairs.csv", tmp_path)
    assert files == ["a.jpg", "b.jpg", "a.jpg", "c.jpg"]
    assert same.tolist() == [True, False]


@pytest.mark.parametrize("mark", [" ", "\t", ","])
def test_path_path_label(mark: str, tmp_path: Path) -> None:
    lines = [("a.jpg", "b.jpg", "1"), ("a.jpg", "c.jpg", "0")]
    (tmp_path / "pairs.txt").write_text("".join(f"{mark.join(line)}\n" for line in lines))
    files, same = read_pair_list(tmp_path / "pairs.txt", tmp_path)
    assert files == ["a.jpg", "b.jpg", "a.jpg", "c.jpg"]
    assert same.tolist() == [True, False]


POINTS = [float(n) for n in range(10, 20)]


@pytest.mark.parametrize(
    ("name", "mark"), [("./p/1.jpg", ","), ("p\\1.jpg", ","), ("p/1.jpg", ", "), ("./p/1.jpg", " ")]
)
def test_landmark_files(name: str, mark: str, tmp_path: Path) -> None:
    line = mark.join([name, *map(str, POINTS)])
    (tmp_path / "points.txt").write_text(f"\ufeff# points\n\n{line}\r\n")
    found = for_photos(read_landmarks(tmp_path / "points.txt"), ["p/1.jpg"])
    assert found["p/1.jpg"][0].points.flatten().tolist() == POINTS


@pytest.mark.parametrize(
    "text", ["1\t0\n\n2\t40\n", "\n1\t0\n2\t40\n\n\n", "1\t0\r\n\r\n2\t40\r\n"]
)
def test_empty_lines_of_an_index(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.idx").write_text(text)
    keys, offsets = read_index(tmp_path / "train.idx")
    assert (keys.tolist(), offsets.tolist()) == ([1, 2], [0, 40])


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("x/a.jpg", False), ("__MACOSX/x/._a.jpg", True), ("x/._a.jpg", True), (".DS_Store", True),
        ("x/Thumbs.db", True), ("./x/a.jpg", False), (".git/a.jpg", True), ("x/a.b.jpg", False),
    ],
)  # fmt: skip
def test_hidden_files(name: str, hidden: bool) -> None:
    assert is_hidden(name) == hidden


def test_an_archive_made_on_a_mac(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name in ("x/a.jpg", "__MACOSX/x/._a.jpg", "x/._b.jpg", ".DS_Store"):
            archive.writestr(name, b"image")
    assert [member.name for member, _ in read_shard(tmp_path / "faces.zip")] == ["x/a.jpg"]


def points_file(folder: Path, order: str, faces: int = 9) -> Path:
    """Points near the template, turned and scaled a little, in the order that is named."""
    generator = np.random.default_rng(0)
    lines = []
    for number in range(faces):
        points = (1 + number) * TEMPLATE + generator.normal(0, 0.5, (5, 2))
        numbers = points.ravel() if order == "xyxy" else points.T.ravel()
        lines.append(f"{number}.jpg " + " ".join(f"{value:.3f}" for value in numbers))
    (folder / "points.txt").write_text("\n".join(lines))
    return folder / "points.txt"


@pytest.mark.parametrize("given", ["auto", "xyxy"])
def test_points_in_the_usual_order(given: str, tmp_path: Path) -> None:
    faces = read_landmarks(points_file(tmp_path, "xyxy"), given)
    assert all(misfit(face.points) < 2 for (face,) in faces.values())


def test_all_x_before_all_y(tmp_path: Path) -> None:
    path = points_file(tmp_path, "xxyy")
    with pytest.raises(
        InputError, match=r"are \d\d\.\d pixels off .*only [01]\.\d: use --order xxyy"
    ):
        read_landmarks(path)
    assert all(misfit(face.points) < 2 for (face,) in read_landmarks(path, "xxyy").values())
    assert all(misfit(face.points) > 10 for (face,) in read_landmarks(path, "xyxy").values())


def test_an_order_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown --order 'yxyx'"):
        read_landmarks(points_file(tmp_path, "xyxy"), "yxyx")
