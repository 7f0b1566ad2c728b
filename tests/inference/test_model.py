"""`marginface.load`: every kind of file, photographs and arrays, decisions by thresholds."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import marginface
from helpers.evaluations import settings
from helpers.pictures import picture
from helpers.runs import compose
from helpers.small_models import STATED, random_faces, small_model, write_onnx
from marginface.cli.enroll import enroll_people
from marginface.data.alignment.template import TEMPLATE, align
from marginface.evaluation.run import evaluate
from marginface.inference.gallery import Gallery
from marginface.inference.open_model import open_model
from marginface.runs.folder import RunFolder
from marginface.training import train
from marginface.utils.errors import InputError, MissingInputError


@pytest.fixture(scope="module")
def verified(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with validations after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("verified")
    more = ["trainer.max_steps=4", "trainer.val_check_interval=2"]
    train(compose(*tiny_run, *more, run_dir=folder))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Aligned faces as files: two of one person, one of another."""
    pictures = random_faces(2, 2)
    paths = []
    for name, rgb in (("a0", pictures[0, 0]), ("a1", pictures[0, 1]), ("b0", pictures[1, 0])):
        paths.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(paths[-1]), rgb[..., ::-1])
    return paths


def test_importing_waits_for_nothing() -> None:
    code = (
        "import sys, marginface; assert 'torch' not in sys.modules; "
        "assert marginface.load; assert 'torch' in sys.modules; "
        "heavy = {'lightning', 'timm', 'hydra', 'omegaconf', 'scipy', 'onnx'}; "
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'loads'"):
        marginface.loads  # noqa: B018


def test_a_run_means_its_best_checkpoint(verified: Path, tmp_path: Path) -> None:
    folder = RunFolder(verified)
    assert open_model(verified).path == folder.best
    assert open_model(verified, checkpoint="last").path == folder.last
    with pytest.raises(InputError, match="unknown checkpoint 'first'. Known: best, last"):
        open_model(verified, checkpoint="first")
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(folder.last.read_bytes())
    assert open_model(tmp_path).path == last  # a run that never validated
    best, at_end = (marginface.load(verified, checkpoint=c) for c in ("best", "last"))
    steps = {w: torch.load(p, weights_only=False)["marginface"]["step"]
             for w, p in (("best", folder.best), ("last", folder.last))}  # fmt: skip
    assert steps["last"] == 4
    assert (best.digest == at_end.digest) == (steps["best"] == 4)
    # The same in an evaluation.
    from marginface.evaluation.config import evaluation_problems

    ok = settings(f"run={verified}", "checkpoint=last", "benchmark=custom_pairs",
                  "benchmark.custom_pairs.root=x", folder=tmp_path)  # fmt: skip
    assert evaluation_problems(ok) == []
    (words,) = evaluation_problems(ok | {"run": None})
    assert "checkpoint=last of which run?" in words
    (words,) = evaluation_problems(ok | {"checkpoint": str(verified)})
    assert "goes with checkpoint=best or checkpoint=last" in words


def test_a_run_brings_its_thresholds(verified: Path) -> None:
    """Those of the validation after the very step of the checkpoint, from all pairs of people."""
    kept = json.loads((verified / "thresholds.json").read_text())
    assert sorted(kept) == ["2", "4"]
    model = marginface.load(verified, checkpoint="last", detector="none")
    assert [vars(t) for t in model.description.thresholds] == kept["4"]
    found = model.threshold(fmr=0.1)
    assert found.impostors == 5 * 4 // 2 * 6 * 6  # 5 people of 6 images
    assert found.set == "heldout"
    assert abs(found.false_matches / found.impostors - 0.1) < 0.05
    picture = np.full((32, 32, 3), 7, np.uint8)
    picture[8:20] = 200
    same = model.verify(picture, picture, fmr=0.1)
    assert same.same
    assert same.cosine == pytest.approx(1)
    assert "FMR 1e-1, 95 % " in str(same)
    assert same.caution is None
    rare = model.limit(1e-3)
    assert rare.caution is not None
    assert "360 impostor pairs, too few to know FMR 1e-3 (rule of 30)" in rare.caution
    assert "supported there: 1e-1 and above" in rare.caution
    with pytest.raises(InputError, match="with flip, and images are embedded without"):
        marginface.load(verified, flip=False).threshold(0.1)
    # A checkpoint of a step without a validation has none, and says what to do.
    with pytest.raises(InputError, match="no thresholds. Evaluate the model.*--threshold"):
        marginface.load(verified, flip=True, evaluation=None, checkpoint="last")  # it is there
        RunFolder(verified).thresholds.rename(verified / "elsewhere.json")
        try:
            marginface.load(verified).threshold(0.1)
        finally:
            (verified / "elsewhere.json").rename(RunFolder(verified).thresholds)


def test_thresholds_of_an_evaluation(verified: Path, sets: Path, tmp_path: Path) -> None:
    pairs = ["benchmark=custom_pairs", f"benchmark.custom_pairs.root={sets / 'pairs'}",
             "benchmark.custom_pairs.bootstrap=10"]  # fmt: skip
    evaluate(settings(f"checkpoint={verified}", *pairs, folder=tmp_path))
    model = marginface.load(verified, evaluation=tmp_path / "out")
    assert {t.set for t in model.description.thresholds} == {"pairs"}
    assert model.description.min_norm is not None
    with pytest.raises(InputError, match="is the evaluation of another network"):
        small = tmp_path / "net.onnx"
        write_onnx(small, side=32)
        marginface.load(small, input=STATED, evaluation=tmp_path / "out")
    (tmp_path / "out" / "thresholds.json").write_text("{}")
    with pytest.raises(InputError, match="does not hold the thresholds"):
        marginface.load(verified, evaluation=tmp_path / "out")


def test_photographs(tmp_path: Path, photos: list[Path]) -> None:
    model = small_model(tmp_path)
    faces = model.embed([*photos, cv2.imread(str(photos[0]))[..., ::-1]])
    assert faces.photo.tolist() == [*map(str, photos), "array 3"]
    np.testing.assert_allclose(faces.embedding[0], faces.embedding[3], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(faces.embedding, axis=1), 1, atol=1e-6)
    assert faces.found.all()
    assert np.isnan(faces.points).all()
    assert (faces.norm > 0).all()
    assert model.verify(photos[0], photos[1], threshold=0.8).same
    assert not model.verify(photos[0], photos[2], threshold=0.8).same
    assert str(model.verify(photos[0], photos[0], threshold=0.8)).endswith(
        "threshold 0.800 (given)"
    )
    with pytest.raises(InputError, match="a threshold is a cosine, -1 to 1, got 61"):
        model.verify(photos[0], photos[1], threshold=61)
    (tmp_path / "bad.png").write_bytes(b"no image")
    kept = model.embed([photos[0], tmp_path / "bad.png", photos[2]], faulty="keep")
    assert kept.status.tolist() == ["ok", "not a decodable image (8 bytes)", "ok"]
    assert np.isnan(kept.embedding[1]).all()
    with pytest.raises(InputError, match="bad.png: not a decodable image"):
        model.embed([photos[0], tmp_path / "bad.png"])
    with pytest.raises(InputError, match="no photographs were given"):
        model.embed([])
    with pytest.raises(InputError, match="unknown option 'min_size' of photographs"):
        model.embed(photos, min_size=3)


def test_photographs_are_aligned_by_points(tmp_path: Path) -> None:
    """A detector of one's own and a landmark file give what aligning by hand gives."""
    picture = random_faces(1, 1)[0, 0]
    turned = cv2.resize(picture, (300, 300))
    points = TEMPLATE * (300 / 112)
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        cv2.imwrite(str(path), turned[..., ::-1])
    (tmp_path / "points.csv").write_text(
        "".join(f"{p.name},{','.join(map(str, points.ravel()))}\n" for p in paths)
    )
    model = small_model(tmp_path, detector=lambda rgb: [points])
    expected = model.embed_aligned(align(turned, points, 112))
    found = model.embed(paths)
    np.testing.assert_allclose(found.embedding, np.repeat(expected, 2, 0), atol=1e-6)
    np.testing.assert_allclose(found.points[0], points, atol=1e-4)
    by_file = model.embed(paths, landmarks=tmp_path / "points.csv")
    np.testing.assert_allclose(by_file.embedding, found.embedding, atol=1e-6)
    assert model.verify(*paths, threshold=0.9, landmarks=tmp_path / "points.csv").same


def test_points_are_those_of_one_photograph_only(tmp_path: Path) -> None:
    """A line for 1.png is nobody's where two people have a photograph of that name."""
    people = ("ann", "bo")
    for person in people:
        (tmp_path / "faces" / person).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "faces" / person / "1.png"), picture(3, 112))
    points = ",".join(map(str, TEMPLATE.ravel()))
    paths = [tmp_path / "faces" / person / "1.png" for person in people]
    bare, full = tmp_path / "bare.csv", tmp_path / "full.csv"
    bare.write_text(f"1.png,{points}\n")
    full.write_text("".join(f"{person}/1.png,{points}\n" for person in people))
    model = small_model(tmp_path)
    with pytest.raises(InputError, match="names none of the 2 photographs"):
        model.verify(*paths, threshold=0.5, landmarks=bare)
    assert model.verify(*paths, threshold=0.5, landmarks=full).same
    by_person = {person: [str(path)] for person, path in zip(people, paths, strict=True)}
    for file in (bare, full):
        model = small_model(tmp_path, landmarks=file)
        with Gallery.open(tmp_path / f"{file.stem}.gallery", model, create=True) as gallery:
            if file == bare:
                with pytest.raises(InputError, match="names none of the 2 photographs"):
                    enroll_people(gallery, by_person, force=True, min_norm=None)
            else:
                enroll_people(gallery, by_person, force=True, min_norm=None)
                assert gallery.names == list(people)
        assert model.photos.landmarks == file, "as it was, for other photographs"


def test_arrays_are_rgb_bytes(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    good = random_faces(1, 2)[0]
    assert model.embed_aligned(good).shape == (2, 64)
    assert model.embed_aligned(good[0]).shape == (1, 64)
    assert model.embed_aligned(torch.from_numpy(good)).shape == (2, 64)
    for wrong, words in (
        (good / np.float32(255), r"holds floats in \[0, 1\].*\(array \* 255\)"),
        (good.astype(np.float32), r"holds floats \(float32\).*array.astype\(np.uint8\)"),
        (good.transpose(0, 3, 1, 2), "channels first.*transpose"),
        (good[..., 0], "shape|gray|channels first"),
        (np.concatenate([good, good[..., :1]], 3), "four channels"),
        (good.astype(np.uint16), "holds uint16"),
        ((good > 99).astype(np.uint8), "bytes of 0 and 1 only"),
        (good[:, :100, :100], "images of 100x100 pixels, the model takes aligned faces of 112x112"),
        (good[:0], "no images"),
        (good.tolist(), "is list"),
    ):
        with pytest.raises(InputError, match=words):
            model.embed_aligned(wrong)
    for wrong, words in (
        (good[0] / np.float32(255), r"array 0 holds floats in \[0, 1\]"),
        (good[0].transpose(2, 0, 1), "array 0 has its channels first"),
        (good[0, ..., 0], "array 0 is gray"),
        (good[0, ..., :1], "array 0 is gray"),
    ):
        with pytest.raises(InputError, match=words):
            model.embed([wrong])


def test_a_template_of_its_own(tmp_path: Path) -> None:
    """Aligned faces are warped onto it, not resized: the points of the face come to be there."""
    weight = write_onnx(tmp_path / "net.onnx", side=160, width=64)
    target = TEMPLATE * 0.9 + np.array([35, 20])
    stated = STATED | {"template": target.tolist(), "border": 128}
    model = marginface.load(tmp_path / "net.onnx", input=stated, detector="none")
    face = random_faces(1, 1)[0, 0]
    by_hand = align(face, TEMPLATE, 160, target, 128)
    found = model.embed([face]).embedding
    np.testing.assert_allclose(found, model.embed_aligned(by_hand), atol=1e-6)
    x = (by_hand / 127.5 - 1).reshape(4, 40, 4, 40, 3).mean((1, 3)).transpose(2, 0, 1).ravel()
    mirrored = x.reshape(3, 4, 4)[..., ::-1].ravel()
    raw = (x + mirrored) @ weight
    np.testing.assert_allclose(found[0], raw / np.linalg.norm(raw), atol=1e-5)
    resized = model.embed_aligned(cv2.resize(face, (160, 160)))
    assert float(np.sum(found * resized)) < 0.99
    # So it is in an evaluation.
    from marginface.inference.embedder import model_embedder

    source = open_model(tmp_path / "net.onnx", given=stated)
    assert source.input.aligned_size == 112
    embedder = model_embedder(source, flip=True)
    raw = embedder(torch.from_numpy(face[None]).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(raw / np.linalg.norm(raw), found, atol=1e-5)


def test_what_is_assumed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(tmp_path / "net.onnx", side=112)
    marginface.load(tmp_path / "net.onnx")
    said = capsys.readouterr().err
    assert "does not say how its images are made. Assumed: RGB, mean 127.5" in said
    assert "(input.color, input.mean, input.std; in commands --describe color=...)" in said
    marginface.load(tmp_path / "net.onnx", input=STATED)
    assert capsys.readouterr().err == ""
    for given, words in (
        ({"size": 128}, "takes images of 112 pixels, input.size=128"),
        ({"middle": 3}, "there is no input.middle; known are color, mean"),
        ({"std": [0, 1, 1]}, "input.std.0: Input should be greater than 0, got 0"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, "in units of 0 to 255.*mean=127.5 and std=127.5"),
        ({"color": "hsv"}, "input.color: Input should be 'rgb' or 'bgr', got 'hsv'"),
        ({"template": [[1, 2]]}, "template has 1 points, expected 5"),
    ):
        with pytest.raises(InputError, match=words):
            marginface.load(tmp_path / "net.onnx", input=given)


def test_faults_of_files(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no checkpoint .*none"):
        marginface.load(tmp_path / "none.onnx")
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="is JSON text") as error:
        marginface.load(tmp_path / "a.json")
    assert "weights_only" not in str(error.value)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="a.jpg is an image, not a model; the model comes first"):
        marginface.load(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="runtime 'tensorrt'. Known: auto"):
        small_model(tmp_path, runtime="tensorrt")
    with pytest.raises(InputError, match="is an ONNX graph; runtime=onnxruntime or openvino"):
        small_model(tmp_path, runtime="torch")
    with pytest.raises(InputError, match="devices: 'cuda:7' is not there"):
        small_model(tmp_path, device="cuda:7")


def test_openvino_computes_as_asked(tmp_path: Path, photos: list[Path]) -> None:
    pytest.importorskip("openvino")
    expected = small_model(tmp_path).embed(photos).embedding
    model = small_model(tmp_path, runtime="openvino")
    assert model._embedder.networks[0].computes_in == "f32"
    np.testing.assert_allclose(model.embed(photos).embedding, expected, atol=1e-5)


def test_embeddings_are_not_those_of_another_template(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cache of embeddings knows how images were made for the network."""
    write_onnx(tmp_path / "net.onnx", side=112)
    own = (TEMPLATE * 0.8 + 10).tolist()
    wanted = ["benchmark=custom_pairs", f"benchmark.custom_pairs.root={sets / 'pairs'}"]
    for place, template in enumerate((None, own, own)):
        config = settings(f"checkpoint={tmp_path}/net.onnx", *wanted, folder=tmp_path)
        config["benchmark"]["custom_pairs"]["bootstrap"] = 10
        config["input"] = STATED | ({} if template is None else {"template": template})
        config["paths"] |= {"run_dir": f"{tmp_path}/{place}", "cache_dir": f"{tmp_path}/cache"}
        evaluate(config)
        assert ("from the cache" in capsys.readouterr().out) == (place == 2)
    facts = json.loads((tmp_path / "1" / "evaluation.json").read_text())["facts"]
    assert facts["normalization"].endswith(", warped onto the network's own template")
