"""Text files made elsewhere: read rightly, or refused with the reason."""

from pathlib import Path

import numpy as np
import pytest

from marginface.data import FolderDataset, ListDataset
from marginface.data.alignment.landmarks import for_photos, read_landmarks
from marginface.data.alignment.template import TEMPLATE, misfit
from marginface.data.formats.recordio.format import read_index
from marginface.data.formats.shards import read_shard
from marginface.data.image_files import is_hidden
from marginface.data.joined import read_people
from marginface.data.pairs.files import read_pair_list
from marginface.data.pairs.verification_sets import load_pairs
from marginface.evaluation.benchmarks.gallery import read_gallery
from marginface.evaluation.benchmarks.ijb_files import read_subjects
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
    "one_unknown_heading": "pfad,label\nx/a.jpg,0\nx/b.jpg,0\ny/c d.jpg,1\n",
    "blanks_in_headings": "Image Path, Class ID\nx/a.jpg, 0\nx/b.jpg, 0\ny/c d.jpg, 1\n",
    "sides_of_the_image": "x/a.jpg,112,112,0\nx/b.jpg,112,112,0\ny/c d.jpg,112,112,1\n",
    "magface": "x/a.jpg 0 0 0\nx/b.jpg 0 0 0\ny/c_d.jpg 0 1 0\n".replace("c_d", "e"),
    "numbers_behind": "x/a.jpg,0,1.5,2\nx/b.jpg,0,3,4\ny/c d.jpg,1,5,6\n",
    "numbered_lines": "1,x/a.jpg,0\n2,x/b.jpg,0\n3,y/c d.jpg,1\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists(kind: str, tmp_path: Path) -> None:
    for name in (*(name for name, _ in THREE), "y/e.jpg"):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "list.csv").write_bytes(LISTS[kind].encode())
    faces = ListDataset(tmp_path / "list.csv", images=tmp_path / "faces")
    assert faces.labels.tolist() == [0, 0, 1]
    names = [name for name, _ in THREE]
    expected = [*names[:2], "y/e.jpg"] if kind == "magface" else names
    assert [faces.image_bytes(i).decode() for i in range(3)] == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "utf-8-sig"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "Jürgen.jpg").write_bytes(b"j")
    (tmp_path / "list.csv").write_text("path,label\nJürgen.jpg,Müller\n", encoding=encoding)
    faces = ListDataset(tmp_path / "list.csv")
    assert faces.image_bytes(0) == b"j"
    assert faces.identity(0) == "Müller"


@pytest.mark.parametrize(
    ("words", "labels", "names"),
    [
        (["0", "0", "1"], [0, 0, 1], None),
        (["1.0", "0.0", "1"], [1, 0, 1], None),
        (["007", "010", "007"], [0, 1, 0], ["007", "010"]),
        (["0", "01", "1"], [0, 1, 1], None),  # the same number in two ways
        (["4711", "815", "4711"], [1, 0, 1], ["815", "4711"]),  # most numbers have no image
        (["123456789012", "9", "9"], [0, 1, 1], ["123456789012", "9"]),
        (["bo", "7", "bo"], [1, 0, 1], ["7", "bo"]),
    ],
)
def test_numbers_of_people(
    words: list[str], labels: list[int], names: list[str] | None, tmp_path: Path
) -> None:
    lines = [f"{number}.jpg {word}\n" for number, word in enumerate(words)]
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "0.jpg").write_bytes(b"")
    faces = ListDataset(tmp_path / "list.txt")
    assert faces.labels.tolist() == labels
    assert faces.identities == names


def test_numbers_are_kept_when_gaps_are_closed(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg 0\nb.jpg 2\nc.jpg 3\n")
    (tmp_path / "a.jpg").write_bytes(b"")
    faces = ListDataset(tmp_path / "list.txt", label_gaps="close")
    assert [faces.identity(label) for label in range(3)] == ["0", "2", "3"]


WRONG_LISTS = {
    "0 x/a.jpg\n1 x/b.jpg\n": r"the labels look like images \('x/a.jpg'\).*other way round",
    "path,fold\nx/a.jpg,0\n": "none of its first 1 images is below",  # read as a label, not there
    "path,fold,part\nx/a.jpg,0,1\n": "no column label; expected path,label and got path,fold,part",
    "what,who,a\nx/a.jpg,0,1\n": "no column path, label; expected path,label and got what,who,a",
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


def test_label_path_path(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("1 a.jpg b.jpg\n0 a.jpg c.jpg\n")
    files, same = read_pair_list(tmp_path / "pairs.txt", tmp_path)
    assert files == ["a.jpg", "b.jpg", "a.jpg", "c.jpg"]
    assert same.tolist() == [True, False]


@pytest.mark.parametrize("heading", ["different", "fold", "score"])
def test_a_column_of_pairs_that_may_be_anything_is_not_taken(heading: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(f"first,second,{heading}\na.jpg,b.jpg,1\n")
    with pytest.raises(InputError, match="no column same; expected first,second,same and got"):
        read_pair_list(tmp_path / "pairs.csv", tmp_path)


def test_pairs_of_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "pairs.csv").write_text("first,second,same\nD:\\x\\a.jpg,D:\\x\\b.jpg,1\n")
    assert load_pairs(tmp_path / "pairs.csv").encoded == ["a.jpg", "b.jpg"]
    assert r"'D:\\x\\a.jpg' is read as 'a.jpg'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["name,imagenum1,imagenum2,\nBo,1,2,\nBo,1,Ann,2\n", "1\t1\nBo\t1\t2\nBo\t1\tAnn\t2\n"],
)
def test_pairs_of_lfw(text: str, tmp_path: Path) -> None:
    for name in ("Bo/Bo_0001.jpg", "Bo/Bo_0002.jpg", "Ann/Ann_0002.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "pairs.csv").write_text(text)
    files, same = read_pair_list(tmp_path / "pairs.csv", tmp_path)
    assert files == ["Bo/Bo_0001.jpg", "Bo/Bo_0002.jpg", "Bo/Bo_0001.jpg", "Ann/Ann_0002.jpg"]
    assert same.tolist() == [True, False]


GALLERIES = {
    "ours": "path,subject,template\na.jpg,ann,1\nb.jpg,ann,1\nc.jpg,bo,2\n",
    "bom_and_crlf": "\ufeffpath,subject,template\r\na.jpg,ann,1\r\nb.jpg,ann,1\r\nc.jpg,bo,2\r\n",
    "other_headings": "template_id;name;file\n1;ann;a.jpg\n1;ann;b.jpg\n2;bo;c.jpg\n",
    "blanks": "# my\npath, subject, template\n\na.jpg, ann, 1\nb.jpg, ann, 1\nc.jpg, bo, 2",
}


@pytest.mark.parametrize("kind", GALLERIES)
def test_galleries(kind: str, tmp_path: Path) -> None:
    (tmp_path / "gallery.csv").write_text(GALLERIES[kind])
    listed = read_gallery(tmp_path / "gallery.csv")
    assert listed == (["a.jpg", "b.jpg", "c.jpg"], ["ann", "ann", "bo"], ["1", "1", "2"])


@pytest.mark.parametrize("mark", [",", ", ", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# same\n\n", "\ufeffsource{0}identity\r\n"])
def test_lists_of_people(start: str, mark: str, tmp_path: Path) -> None:
    text = f'{start.format(mark)}0{mark}ann\n\n1{mark}"bo lee"\r\n'
    (tmp_path / "drop.csv").write_text(text)
    assert read_people(tmp_path / "drop.csv", 1) == [[(0, "ann")], [(1, "bo lee")]]


def test_people_under_headings_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "drop.csv").write_text("identity;source\nann;1\n")
    assert read_people(tmp_path / "drop.csv", 1) == [[(1, "ann")]]
    text = "identity1,source1,source_2,identity_2\nann,0,1,bo\n"
    (tmp_path / "merge.csv").write_text(text)
    assert read_people(tmp_path / "merge.csv", 2) == [[(0, "ann"), (1, "bo")]]


@pytest.mark.parametrize("mark", [",", ", ", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# from NIST\n"])
def test_subjects_of_ijb(start: str, mark: str, tmp_path: Path) -> None:
    lines = [["FILENAME", "SUBJECT_ID", "TEMPLATE_ID"], ["a.jpg", "7", "1"], ["b.jpg", "8", "2"]]
    text = start + "\r\n".join(mark.join(line) for line in lines)
    (tmp_path / "x_1N_gallery_G1.csv").write_text(text)
    subjects = read_subjects(tmp_path / "x_1N_gallery_G1.csv")
    assert (subjects.template_id.tolist(), subjects.subject_id.tolist()) == ([1, 2], [7, 8])


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


FIVE = [f"{value:.2f}" for value in TEMPLATE.ravel()]
SWAPPED = [f"{value:.2f}" for value in TEMPLATE[:, ::-1].ravel()]
PARTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
LANDMARKS = {
    "headings": ["Image Path", *(f"{axis}{n}" for n in range(1, 6) for axis in "xy")],
    "y first": ["path", *(f"{axis}{n}" for n in range(5) for axis in "yx")],
    "VGGFace2": ["NAME_ID", *(f"P{n}{axis}" for n in range(1, 6) for axis in "XY")],
    "CelebA": [*(f"{part}_{axis}" for part in PARTS for axis in "xy")],
    "unknown": ["photo", *"abcdefghij"],
}


@pytest.mark.parametrize("kind", LANDMARKS)
def test_headings_of_landmarks(kind: str, tmp_path: Path) -> None:
    mark = " " if kind == "CelebA" else ","
    name = "p/1" if kind == "VGGFace2" else "p/1.jpg"
    lines = [LANDMARKS[kind], [name, *(SWAPPED if kind == "y first" else FIVE)]]
    (tmp_path / "points.csv").write_text("\n".join(mark.join(line) for line in lines))
    found = for_photos(read_landmarks(tmp_path / "points.csv"), ["p/1.jpg", "p/2.jpg"])
    np.testing.assert_allclose(found["p/1.jpg"][0].points, TEMPLATE, atol=0.01)
    assert list(found) == ["p/1.jpg"]


def test_columns_between_landmarks(tmp_path: Path) -> None:
    headings = [
        "",
        "x1",
        "y1",
        "score",
        *(f"{a}{n}" for n in range(2, 6) for a in "xy"),
        "label",
        "file",
    ]
    line = ["0", *FIVE[:2], "0.75", *FIVE[2:], "ann", "1.jpg"]
    (tmp_path / "points.csv").write_text("\n".join(",".join(row) for row in (headings, line)))
    (face,) = read_landmarks(tmp_path / "points.csv")["1.jpg"]
    np.testing.assert_allclose(face.points, TEMPLATE, atol=0.01)
    assert (face.score, face.identity) == (0.75, "ann")


def test_a_label_before_the_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [[f"{number}.jpg", str(number), *FIVE] for number in range(3)]
    (tmp_path / "points.txt").write_text("\n".join(" ".join(line) for line in lines))
    faces = read_landmarks(tmp_path / "points.txt")
    np.testing.assert_allclose(faces["2.jpg"][0].points, TEMPLATE, atol=0.01)
    assert faces["2.jpg"][0].identity == "2"
    assert "read 'name label x1 y1 ... x5 y5'" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["nan", "x"])
def test_one_bad_line_decides_nothing(word: str, tmp_path: Path) -> None:
    """A number that is none neither hides a label column nor ends in a traceback."""
    lines = [[f"{number}.jpg", str(number), *FIVE] for number in range(3)]
    lines[1][5] = word
    (tmp_path / "points.txt").write_text("\n".join(" ".join(line) for line in lines))
    if word == "x":
        with pytest.raises(InputError, match="line 2 does not hold a name and five points"):
            read_landmarks(tmp_path / "points.txt")
    else:  # rejected with its photograph
        faces = read_landmarks(tmp_path / "points.txt")
        np.testing.assert_allclose(faces["2.jpg"][0].points, TEMPLATE, atol=0.01)
        assert np.isnan(faces["1.jpg"][0].points).any()


@pytest.mark.parametrize(
    "named", ["p/1.jpg", "./p/1.jpg", "/home/me/p/1.jpg", "C:\\me\\p\\1.jpg", "p/1", "1.jpg"]
)
def test_names_of_photographs(named: str) -> None:
    assert for_photos({named: 7}, ["p/1.jpg", "q/2.jpg"]) == {"p/1.jpg": 7}


@pytest.mark.parametrize(
    "text",
    [
        "1\t0\n\n2\t40\n", "\n1\t0\n2\t40\n\n\n", "1\t0\r\n\r\n2\t40\r\n", "1 0\n2 40\n",
        "\ufeff1\t0\n2\t40\n", "# key, offset\n1\t0 \n 2\t40", "1\t0 \r\n2 \t40 \r\n",
    ],
)  # fmt: skip
def test_untidy_indexes(text: str, tmp_path: Path) -> None:
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


def test_hidden_files_of_every_format(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    for name in ("p/1.jpg", "p/._1.jpg", "p/Thumbs.db", "__MACOSX/1.jpg", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    faces = FolderDataset(tmp_path)
    assert (faces.files, faces.ignored, faces.identities) == (["p/1.jpg"], [], ["p"])
    (tmp_path / "list.txt").write_text("p/1.jpg 0")
    (tmp_path / "._list.txt").write_bytes(b"\0\5\x16\7")
    assert ListDataset(tmp_path).path.name == "list.txt"


def test_a_list_that_names_hidden_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    text = "./1.jpg 0\n._1.jpg 0\nx/._2.jpg 1\n1.jpg 1\n.cache/a._b.jpg 1\n"
    (tmp_path / "list.txt").write_text(text)
    faces = ListDataset(tmp_path / "list.txt")
    assert faces.files == ["./1.jpg", "1.jpg", ".cache/a._b.jpg"]
    assert faces.labels.tolist() == [0, 1, 1]
    assert "2 hidden files in it are not read" in capsys.readouterr().err


def test_landmarks_of_68_points_are_refused(tmp_path: Path) -> None:
    line = ",".join(["1.jpg", *map(str, range(136))])
    (tmp_path / "points.csv").write_text(line)
    with pytest.raises(InputError, match="137 fields, as those of about 68 points; five are"):
        read_landmarks(tmp_path / "points.csv")


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
