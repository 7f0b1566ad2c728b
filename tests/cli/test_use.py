"""The commands that use a model: export, embed, verify, enroll, identify, gallery, profile."""

import csv
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import marginface as package
from helpers.commands import marginface
from helpers.small_models import random_faces, write_onnx

STATED = [word for key in ("color=rgb", "mean=127.5", "std=127.5") for word in ("--describe", key)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx, and faces/<person>/<number>.png of 12 people."""
    root = tmp_path_factory.mktemp("use")
    write_onnx(root / "net.onnx", side=112, width=64)
    for person, images in enumerate(random_faces(12, 4)):
        (root / "faces" / f"p{person}").mkdir(parents=True)
        for number, rgb in enumerate(images):
            cv2.imwrite(str(root / "faces" / f"p{person}" / f"{number}.png"), rgb[..., ::-1])
    return root


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_verify(place: Path, tmp_path: Path) -> None:
    common = ["--aligned", "--threshold", "0.7", *STATED]
    same = marginface("verify", "net.onnx", "faces/p0/0.png", "faces/p0/1.png", *common)
    assert same.exit_code == 0, same.stderr
    assert same.stdout.startswith("same: cosine 0.")
    other = marginface("verify", "net.onnx", "faces/p0/0.png", "faces/p1/1.png", *common, "--json")
    assert other.exit_code == 1
    assert json.loads(other.stdout)["same"] is False
    (tmp_path / "pairs.csv").write_text(
        f"first,second,same\n{place}/faces/p0/0.png,{place}/faces/p0/1.png,1\n"
        f"{place}/faces/p0/0.png,{place}/faces/p2/1.png,0\n{place}/faces/p0/0.png,none.png,0\n"
    )
    listed = ["--pairs", f"{tmp_path}/pairs.csv", "--out", f"{tmp_path}/scores.csv"]
    done = marginface("verify", "net.onnx", *listed, *common)
    assert done.exit_code == 0, done.stderr
    assert "3 pairs: 1 same, 1 different at threshold 0.700, 1 without a score" in done.stdout
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["decision"] for row in rows] == ["same", "different", "failed"]
    assert [row["same"] for row in rows] == ["1", "0", "0"]
    assert rows[2]["reason"] == "none.png: cannot be read (No such file or directory)"
    for arguments, words in (
        (["faces/p0/0.png"], "give two photographs, or --pairs"),
        (["faces/p0/0.png", *listed], "--pairs names its photographs itself; leave faces/p0/0.png"),
        (listed[:2], "--pairs and --out go together"),
        (listed, "scores.csv exists; choose another name"),
        (["faces/p0/0.png", "faces/p0/1.png", "--landmarks", "x"], "exclude each other"),
        (["faces/p0/0.png", "faces/p0/1.png", "--face", "any"], "unknown --face 'any'"),
        (["faces/p0/0.png", "faces/p0/1.png", "--describe", "mean"], "expected key=value"),
        (["faces/p0/0.png", "faces/p0/1.png", "--describe", "mean=a"], "mean=a: expected numbers"),
        (["faces/p0/0.png", "faces/p0/1.png", "--describe", "colr=rgb"], "Did you mean 'color'?"),
        (["faces/p0/0.png", "none.png"], "none.png: cannot be read"),
    ):
        wrong = marginface("verify", "net.onnx", *arguments, *common)
        assert wrong.exit_code == 2, arguments
        assert words in wrong.stderr
    (tmp_path / "lost.csv").write_text("first,second\np0/0.png,p0/1.png\n")
    lost = ["--pairs", f"{tmp_path}/lost.csv", "--out", f"{tmp_path}/lost_scores.csv"]
    nowhere = marginface("verify", "net.onnx", *lost, *common)
    assert nowhere.exit_code == 2
    assert "no photograph of " in nowhere.stderr
    assert "No such file or directory) (--root names the folder" in nowhere.stderr
    assert not (tmp_path / "lost_scores.csv").exists()
    found = marginface("verify", "net.onnx", *lost, "--root", "faces", *common)
    assert "1 pairs: 1 same" in found.stdout
    without = marginface("verify", "net.onnx", "faces/p0/0.png", "faces/p0/1.png", "--aligned")
    assert without.exit_code == 2
    assert "has no thresholds" in without.stderr
    assert "--threshold" in without.stderr


def test_embed(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "faces", tmp_path / "faces")
    (tmp_path / "faces" / "p0" / "bad.png").write_bytes(b"none")
    out = tmp_path / "e.npz"
    command = [
        "embed",
        str(place / "net.onnx"),
        f"{tmp_path}/faces",
        str(out),
        "--aligned",
        *STATED,
    ]
    done = marginface(*command)
    assert done.exit_code == 0, done.stderr
    assert "48 faces of 49 photographs" in done.stdout
    assert "1 without an embedding: not a decodable image (4 bytes); the first is " in done.stderr
    content = np.load(out)
    assert content["embeddings"].shape == (49, 64)
    assert content["path"][0] == "p0/0.png"
    assert content["subject"].tolist().count("p0") == 5
    failed = content["status"] != "ok"
    assert content["path"][failed].tolist() == ["p0/bad.png"]
    assert np.isnan(content["embeddings"][failed]).all()
    np.testing.assert_allclose(np.linalg.norm(content["embeddings"][~failed], axis=1), 1, atol=1e-5)
    about = json.loads(str(content["about"]))
    assert about["digest"] == package.load(place / "net.onnx").digest
    assert "e.npz exists; choose another name" in marginface(*command).stderr
    wrong = marginface(*command[:3], f"{tmp_path}/e.txt", *command[4:])
    assert "written as .npz or .parquet" in wrong.stderr
    parquet = marginface(*command[:3], f"{tmp_path}/e.parquet", *command[4:])
    assert parquet.exit_code == 0, parquet.stderr
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "e.parquet")
    assert table["path"].to_pylist() == content["path"].tolist()
    vectors = np.stack(table["embeddings"].to_numpy())
    np.testing.assert_array_equal(vectors[~failed], content["embeddings"][~failed])
    assert table.schema.field("points").type.list_size == 10


def test_subjects_of_a_list_are_those_of_its_lines(place: Path, tmp_path: Path) -> None:
    """However a photograph is written, and when it stands there twice."""
    here = place / "faces"
    names = ["./p0/0.png", "p0//1.png", f"{here}/p1/0.png", "p0/0.png", "none.png"]
    lines = [f"{name},{subject}" for name, subject in zip(names, "abcde", strict=True)]
    (here / "list.csv").write_text("path,subject\n" + "\n".join(lines))
    try:
        done = marginface(
            "embed", "net.onnx", "faces/list.csv", f"{tmp_path}/e.npz", "--aligned", *STATED
        )
    finally:
        (here / "list.csv").unlink()
    assert done.exit_code == 0, done.stderr
    content = np.load(tmp_path / "e.npz")
    assert content["subject"].tolist() == list("abcde")
    assert content["path"].tolist() == names
    assert (content["status"] == "ok").tolist() == [True] * 4 + [False]
    assert (tmp_path / "e.npz").stat().st_mode & 0o077 == 0


def test_nobody_in_any_photograph(place: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_bytes(b"x")
    for target in ("n.npz", "n.parquet"):
        nobody = marginface(
            "embed", "net.onnx", f"{tmp_path}/none", f"{tmp_path}/{target}", "--aligned", *STATED
        )
        assert nobody.exit_code == 2
        assert "no face in 1 photographs; " in nobody.stderr
    assert np.load(tmp_path / "n.npz")["embeddings"].shape == (1, 64)
    wrong = marginface(
        "embed", "net.onnx", "faces", f"{tmp_path}/x.npz", "--aligned", "--batch", "0", *STATED
    )
    assert (wrong.exit_code, "the batch must be 1 face or more" in wrong.stderr) == (2, True)


def test_embedding_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done before a run was stopped is not done again, and the result is the same."""
    from marginface.inference import embedding_file
    from marginface.inference.model import Model

    monkeypatch.setattr(embedding_file, "_PART", 10)
    out, parts = tmp_path / "e.npz", tmp_path / "e.npz.parts"
    command = ["embed", "net.onnx", "faces", str(out), "--aligned", *STATED]
    stream, embedded = Model.embed_stream, []

    def stopped(self: Model, photos: list[str], *rest: object, **more: object) -> object:
        if len(embedded) == 2:
            raise KeyboardInterrupt
        embedded.append(photos)
        return stream(self, photos, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "embed_stream", stopped)
    assert marginface(*command).exit_code != 0
    assert sorted(p.name for p in parts.iterdir()) == ["000000.npz", "000001.npz", "of.json"]
    again = marginface(*command)
    assert again.exit_code == 2
    assert "holds 2 parts of a run that was stopped; --resume goes on" in again.stderr
    other = marginface(*command, "--resume", "--no-flip")
    assert "is of another model, other photographs or other options" in other.stderr
    bgr = [word.replace("rgb", "bgr") for word in command]
    other = marginface(*bgr, "--resume")
    assert "is of another model, other photographs or other options" in other.stderr
    photo = sorted(Path("faces").rglob("*.*"))[0]
    times = photo.stat().st_atime_ns, photo.stat().st_mtime_ns
    photo.touch()  # as one that was exchanged
    other = marginface(*command, "--resume")
    assert "is of another model, other photographs or other options" in other.stderr
    os.utime(photo, ns=times)
    embedded.clear()

    def counted(self: Model, photos: list[str], *rest: object, **more: object) -> object:
        embedded.append(photos)
        return stream(self, photos, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "embed_stream", counted)
    done = marginface(*command, "--resume")
    assert done.exit_code == 0, done.stderr
    assert [len(photos) for photos in embedded] == [10, 10, 8]
    assert not parts.exists()
    whole = package.load(place / "net.onnx", detector="none").embed(
        [str(Path("faces") / name) for name in np.load(out)["path"].tolist()]
    )
    np.testing.assert_allclose(np.load(out)["embeddings"], whole.embedding, atol=1e-6)


def test_a_gallery(place: Path, tmp_path: Path) -> None:
    file, strangers = str(tmp_path / "staff.gallery"), tmp_path / "strangers"
    shutil.copytree(place / "faces", tmp_path / "people")
    for person in ("p10", "p11"):
        shutil.move(tmp_path / "people" / person, strangers / person)
    probes = tmp_path / "probes"
    probes.mkdir()
    for person in range(10):
        shutil.move(tmp_path / "people" / f"p{person}" / "3.png", probes / f"p{person}.png")
    shutil.copy(place / "faces" / "p3" / "0.png", tmp_path / "people" / "p4" / "copy.png")
    common = ["--aligned", *STATED]
    enrolled = marginface("enroll", "net.onnx", file, f"{tmp_path}/people", *common)
    assert enrolled.exit_code == 0, enrolled.stderr
    assert "30 photographs of 10 people enrolled, 1 refused; 10 people in" in enrolled.stdout
    assert "copy.png of 'p4': the very same photograph is enrolled as 'p3'" in enrolled.stderr
    found = marginface("identify", "net.onnx", file, str(probes), "--fpir", "0.2", *common)
    assert found.exit_code == 0, found.stderr
    assert "from the 10 people of the gallery themselves" in found.stderr
    assert f"{probes}/p3.png: p3: cosine 0." in found.stdout
    as_csv = marginface(
        "identify", "net.onnx", file, str(probes), "--fpir", "0.2", "--csv", *common
    )
    rows = list(csv.DictReader(as_csv.stdout.splitlines()))
    assert np.mean([row["name"] == Path(row["path"]).stem for row in rows]) >= 0.9
    unknown = marginface(
        "identify", "net.onnx", file, str(strangers), "--threshold", "0.99", "--json", *common
    )
    assert unknown.exit_code == 1
    answers = [json.loads(line) for line in unknown.stdout.splitlines()]
    assert [a["name"] for a in answers] == [None] * 8
    assert len(answers[0]["candidates"]) == 5
    too_rare = marginface("identify", "net.onnx", file, str(probes), *common)
    assert too_rare.exit_code == 2
    assert "FPIR 1e-2 needs 200 people" in too_rare.stderr
    assert "p3\t3\t20" in marginface("gallery", "list", file).stdout
    check = marginface("gallery", "check", file)
    assert check.exit_code == 0, check.stderr
    assert "10 people, 30 images\nthe file is whole" in check.stdout
    removed = marginface("gallery", "remove", file, "p3")
    assert removed.stdout == "p3: 3 images removed\n"
    assert "nobody in " in marginface("gallery", "remove", file, "p3").stderr
    info = marginface("gallery", "info", file).stdout
    assert "9 people, 27 images" in info
    assert "3 images of removed people emptied" in info
    assert "bytes before" in marginface("gallery", "compact", file).stdout
    exported = marginface("gallery", "export", file, f"{tmp_path}/g.parquet")
    assert exported.stdout == f"27 images in {tmp_path}/g.parquet\n"
    nobody = marginface("enroll", "net.onnx", file, str(probes), *common)
    assert "does not say who its photographs show" in nobody.stderr
    shutil.copy(probes / "p4.png", tmp_path / "people" / "stray.png")
    stray = marginface("enroll", "net.onnx", file, f"{tmp_path}/people", *common)
    assert "people/stray.png is in no person's folder; move it into one" in stray.stderr
    named = marginface("enroll", "net.onnx", file, f"{probes}/p3.png", "--name", "p3", *common)
    assert named.exit_code == 0, named.stderr


def test_rebuilding_a_gallery(place: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "a.gallery")
    common = ["--aligned", *STATED]
    assert marginface("enroll", "net.onnx", file, "faces", *common).exit_code == 0
    write_onnx(tmp_path / "other.onnx", side=112, width=32)
    other = str(tmp_path / "other.onnx")
    refused = marginface("identify", other, file, "faces/p0/0.png", *common)
    assert refused.exit_code == 2
    assert "enroll again with `marginface gallery rebuild" in refused.stderr
    shutil.copytree(place / "faces", tmp_path / "faces")
    shutil.rmtree(tmp_path / "faces" / "p5")
    before = Path(file).read_bytes()
    lost = marginface("gallery", "rebuild", file, other, f"{tmp_path}/faces", *common)
    assert lost.exit_code == 2
    assert "has no photographs of 1 people" in lost.stderr
    (tmp_path / "faces" / "p5").mkdir()
    (tmp_path / "faces" / "p5" / "a.png").write_bytes(b"x")
    bad = marginface("gallery", "rebuild", file, other, f"{tmp_path}/faces", *common)
    assert bad.exit_code == 2
    assert "1 people have no photograph that is good enough" in bad.stderr
    assert Path(file).read_bytes() == before
    done = marginface("gallery", "rebuild", file, other, "faces", *common)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith(f"12 people in {file}\n")
    found = marginface("identify", other, file, "faces/p0/0.png", "--threshold", "0.9", *common)
    assert ": p0: cosine" in found.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gallery", "faces", "other.onnx"]


def test_people_removed_while_rebuilding_stay_removed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marginface.cli import enroll
    from marginface.inference.gallery_opening import open_gallery_file

    file = str(tmp_path / "a.gallery")
    common = ["--aligned", *STATED]
    made = marginface("enroll", "net.onnx", file, "faces", "--keep-paths", *common)
    assert made.exit_code == 0, made.stderr
    again = marginface("gallery", "rebuild", file, "net.onnx", "faces", *common)
    assert again.exit_code == 0, again.stderr
    paths = {row[5] for row in open_gallery_file(Path(file)).details()}
    assert "faces/p0/0.png" in paths
    as_it_was = enroll.enroll_people

    def meanwhile(*rest: object, **more: object) -> str:
        done = as_it_was(*rest, **more)  # type: ignore[arg-type]
        assert marginface("gallery", "remove", file, "p2").exit_code == 0
        second = marginface("gallery", "rebuild", file, "net.onnx", "faces", *common)
        assert "another process is writing" in second.stderr
        return done

    monkeypatch.setattr(enroll, "enroll_people", meanwhile)
    changed = marginface("gallery", "rebuild", file, "net.onnx", "faces", *common)
    assert changed.exit_code == 2
    assert "was changed while it was rebuilt, and was left as it is" in changed.stderr
    assert "enrolled" not in changed.stdout, "nobody was"
    assert "p2" not in marginface("gallery", "list", file).stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.gallery"]


def test_export(run: Path, tmp_path: Path) -> None:
    done = marginface("export", str(run), f"{tmp_path}/a.onnx", "--input", "uint8")
    assert done.exit_code == 0, done.stderr
    assert "a.onnx written and checked: max difference" in done.stdout
    folder = marginface("export", str(run), f"{tmp_path}/model", "--license", "unknown")
    assert folder.exit_code == 0, folder.stderr
    assert "Ask whoever trained it" in (tmp_path / "model" / "README.md").read_text()
    for arguments, words in (
        (["b"], "needs --license"),
        (["b.onnx", "--license", "mit"], "are for a folder to share"),
        (["b.onnx", "--input", "int"], "unknown --input 'int'"),
        (["b.onnx", "--precision", "fp8"], "unknown --precision 'fp8'"),
        (["a.onnx"], "exists and would be overwritten"),
        (["b.onnx", "--pack", f"{tmp_path}/pack"], "its images are not 112 pixels"),
        (["b.onnx", "--checkpoint", "first"], "unknown checkpoint 'first'"),
    ):
        target, *rest = arguments
        wrong = marginface("export", str(run), f"{tmp_path}/{target}", *rest)
        assert wrong.exit_code == 2, arguments
        assert words in wrong.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "model"]


def test_export_that_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from marginface.inference.export_check import Check

    monkeypatch.setattr(Check, "problems", lambda self, precision: ["it is wrong"])
    refused = marginface("export", str(run), f"{tmp_path}/a.onnx")
    assert refused.exit_code == 1
    assert "was not written: it is wrong. Measured: max difference" in refused.stdout
    assert refused.stderr == ""
    assert list(tmp_path.iterdir()) == []
    forced = marginface("export", str(run), f"{tmp_path}/a.onnx", "--force")
    assert forced.exit_code == 0
    assert package.load(tmp_path / "a.onnx").description.check["refused"] == ["it is wrong"]


@pytest.mark.slow
def test_profile(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    arguments = ["--batch", "1,2", "--runtimes", "torch,onnxruntime", "--no-memory"]
    done = marginface("profile", str(run), *arguments, "--out", str(out))
    assert done.exit_code == 0, done.stderr
    content = json.loads(out.read_text())
    assert [(r["runtime"], r["batch"]) for r in content["rows"]] == [
        ("torch", 1), ("onnxruntime", 1), ("torch", 2), ("onnxruntime", 2),
    ]  # fmt: skip
    first, second = content["rows"][:2]
    assert first["ratio"] == 1
    assert second["min_cosine"] > 1 - 1e-6
    assert second["images_per_second"] == pytest.approx(1e3 / second["median_ms"])
    assert content["parameters"] > 0
    assert content["multiply_adds"] > 0
    for rest, words in (
        (["--runtimes", "tpu"], "unknown runtime 'tpu'"),
        (["--batch", "0"], "--batch takes whole numbers from 1"),
        (["--threads", "x"], "--threads x: expected whole numbers"),
        (["--runtimes", "int8"], "int8 needs --calibration"),
        (["--out", str(out)], "exists; choose another name"),
    ):
        wrong = marginface("profile", str(run), *rest)
        assert wrong.exit_code == 2
        assert words in wrong.stderr
    with_plugins = ["--batch", "1", "--runtimes", "torch", "--plugins", "json.tool"]
    measured = marginface("profile", str(run), *with_plugins)
    assert measured.exit_code == 0, measured.stderr
    graph = marginface("profile", "net.onnx", "--runtimes", "torch", *STATED)
    assert "is a graph; --runtimes onnxruntime,openvino" in graph.stderr


def test_memory_is_measured(run: Path) -> None:
    from marginface.inference.open_model import open_model
    from marginface.inference.profile import profile

    rows = profile(open_model(run), runtimes=["torch"], batches=[1], threads=[1])
    assert rows[0].peak_mib is not None
    assert 100 < rows[0].peak_mib < 3000  # torch alone takes 200
