"""`python evaluate.py` and `marginface compare`: from files to a report, and what can be wrong."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import html5lib
import hydra
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from typer.testing import CliRunner

from helpers.benchmark_sets import write_gallery, write_ijb, write_pairs_csv, write_tinyface
from helpers.runs import compose
from marginface.backbones import create_backbone
from marginface.cli.main import app
from marginface.config.command_line import check_command_line
from marginface.config.resolve import config_dir, to_plain
from marginface.data import SyntheticFaces, load_pairs
from marginface.evaluation.config import evaluation_problems
from marginface.evaluation.run import evaluate
from marginface.inference import model_file as model_files
from marginface.inference import onnx as onnx_network
from marginface.inference.embedder import Embedder, load_embedder
from marginface.inference.model_file import open_model
from marginface.metrics.verification import evaluate_pairs
from marginface.training.run import train
from marginface.utils.errors import InputError, MissingInputError

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def settings(*overrides: str, folder: Path) -> dict[str, Any]:
    """The resolved configuration of an evaluation that writes below `folder`."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = hydra.compose("evaluate", overrides=list(overrides))
    config.paths.log_dir = str(folder / "logs")
    config.paths.run_dir = str(folder / "out")
    config.num_workers = 0
    return to_plain(config)


@pytest.fixture(scope="module")
def run(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of seconds."""
    folder = tmp_path_factory.mktemp("run")
    train(compose(*tiny_run, "trainer.max_steps=3", "data.val_identities=0", run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One benchmark of each kind."""
    root = tmp_path_factory.mktemp("sets")
    write_pairs_csv(root / "pairs")
    write_ijb(root / "ijb")
    write_tinyface(root / "tinyface")
    write_gallery(root / "gallery", strangers=True)
    return root


def everything(sets: Path) -> list[str]:
    return [
        "benchmark=[custom_pairs,ijbc,tinyface,custom_gallery]",
        f"benchmark.custom_pairs.root={sets / 'pairs'}",
        f"benchmark.ijbc.root={sets / 'ijb'}",
        f"benchmark.tinyface.root={sets / 'tinyface'}",
        f"benchmark.custom_gallery.root={sets / 'gallery'}",
        "benchmark.custom_gallery.fpirs=[0.25]",
        *(f"benchmark.{b}.bootstrap=20" for b in ("custom_pairs", "ijbc", "tinyface")),
    ]


@pytest.fixture(scope="module")
def evaluated(run: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    config = settings(f"checkpoint={run}", *everything(sets), "thumbnails=true", folder=folder)
    evaluate(config)
    return folder


def test_every_kind_of_benchmark(evaluated: Path, run: Path, sets: Path) -> None:
    result = json.loads((evaluated / "out" / "result.json").read_text())
    for key in (
        "custom_pairs/accuracy", "custom_pairs/tar@1e-3", "custom_pairs/auc", "ijbc/tar@1e-4",
        "ijbc/rank1", "ijbc/tpir@1e-2", "tinyface/rank1", "custom_gallery/tpir@2.5e-1",
    ):  # fmt: skip
        assert result[f"{key}/low"] <= result[key] <= result[f"{key}/high"], key
    assert all(isinstance(value, float) for value in result.values())
    # The same from the functions a user would call.
    pairs = load_pairs(sets / "pairs" / "pairs.csv", image_size=32)
    embeddings = load_embedder(run)(pairs.images)
    expected = evaluate_pairs(embeddings, torch.from_numpy(pairs.same))
    assert result["custom_pairs/accuracy"] == expected.accuracy
    assert result["custom_pairs/auc"] == pytest.approx(expected.auc, abs=1e-9)
    facts = json.loads((evaluated / "out" / "evaluation.json").read_text())
    assert facts["facts"]["color"] == "rgb"
    assert facts["facts"]["flip"].startswith("embedding of the mirror image added")
    assert all(entry["protocol"] for entry in facts["benchmarks"])


def test_the_page(evaluated: Path) -> None:
    text = (evaluated / "out" / "report.html").read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    assert "http" not in text.replace("http-equiv", "")
    for words in (
        "rule of 30", "ROC", "DET", "95 % interval", "(N1)", "Groups at the common", "even",
        "Thresholds carried to another set", "Hardest impostor pairs", "data:image/png",
    ):  # fmt: skip
        assert words in text, words


def test_scoring_again_needs_no_network(
    evaluated: Path, run: Path, sets: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr(model_files, "create_backbone", never)
    again = settings(f"checkpoint={run}", *everything(sets), folder=evaluated)
    again["paths"]["run_dir"] = str(evaluated / "again")
    first = json.loads((evaluated / "out" / "result.json").read_text())
    assert evaluate(again) == first
    assert capsys.readouterr().out.count("embedded from the cache") == 4
    assert "data:image" not in (evaluated / "again" / "report.html").read_text()  # no faces unasked
    with (evaluated / "logs" / "evaluations" / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["folder"]).name for row in rows] == ["out", "again"]
    assert float(rows[1]["ijbc/rank1"]) == first["ijbc/rank1"]
    # Another image, another flip: embedded again.
    image = sets / "pairs" / "s0" / "0.png"
    shutil.copy(sets / "pairs" / "s1" / "1.png", image)
    for change in ([], ["flip=false"]):
        config = settings(
            f"checkpoint={run}", "benchmark=custom_pairs", *change,
            f"benchmark.custom_pairs.root={sets / 'pairs'}", folder=evaluated,
        )  # fmt: skip
        config["paths"]["run_dir"] = str(evaluated / "never")
        with pytest.raises(AssertionError, match="the network was built"):
            evaluate(config)


def test_new_columns_join_the_table(run: Path, sets: Path, tmp_path: Path) -> None:
    for benchmark, root in (("tinyface", "tinyface"), ("custom_pairs", "pairs")):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        evaluate(
            settings(
                f"checkpoint={run}", f"benchmark=[{benchmark}]", "cache=false",
                f"benchmark.{benchmark}.root={sets / root}", f"benchmark.{benchmark}.bootstrap=3",
                folder=tmp_path,
            )
        )  # fmt: skip
    assert not (tmp_path / "logs" / "cache").exists()
    with (tmp_path / "logs" / "evaluations" / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["tinyface/rank1"]
    assert rows[0]["custom_pairs/auc"] == rows[1]["tinyface/rank1"] == ""


def test_bare_weights_are_recognized(tmp_path: Path) -> None:
    network = create_backbone("iresnet18", embedding_size=128)
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    model = open_model(tmp_path / "backbone.pth", color="bgr")
    assert (model.name, model.image_size, model.color) == ("iresnet18", 112, "bgr")
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    found = Embedder(model.build(), 112, "rgb", flip=False)(images)
    expected = network.eval()(images.float() / 127.5 - 1).detach()
    assert torch.nn.functional.cosine_similarity(found, expected) == pytest.approx([1, 1], abs=1e-4)
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert open_model(tmp_path / "old.pth").name == "iresnet18"
    save_file(network.state_dict(), tmp_path / "new.safetensors")
    assert open_model(tmp_path / "new.safetensors").name == "iresnet18"
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="none of iresnet18, .*mobilefacenet.*backbone=<name>"):
        open_model(tmp_path / "other.pth")
    config = {"name": "iresnet34", "embedding_size": 128, "image_size": 112, "color": "rgb"}
    with pytest.raises(InputError, match="does not fit this backbone"):
        open_model(tmp_path / "backbone.pth", config).build()


def write_onnx(path: Path, batch: int | str, side: int | str = 32) -> np.ndarray:
    """A graph that averages an image over 4 x 4 and multiplies the channels by a matrix."""
    weight = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["data"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return weight


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_onnx(tmp_path: Path, sets: Path, batch: int | str) -> None:
    weight = write_onnx(tmp_path / "net.onnx", batch)
    model = open_model(tmp_path / "net.onnx")
    assert (model.name, model.image_size, model.color) == ("net", 32, "rgb")
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    pooled = torch.nn.functional.avg_pool2d(images.float() / 127.5 - 1, 8).flatten(1)
    flipped = torch.nn.functional.avg_pool2d(images.flip(3).float() / 127.5 - 1, 8).flatten(1)
    found = Embedder(model.build(), 32, "rgb", devices=["cpu", "cpu"])(images)
    torch.testing.assert_close(found, (pooled + flipped) @ torch.from_numpy(weight))
    result = evaluate(
        settings(
            f"checkpoint={tmp_path / 'net.onnx'}", "benchmark=[tinyface]",
            f"benchmark.tinyface.root={sets / 'tinyface'}", "benchmark.tinyface.bootstrap=3",
            folder=tmp_path,
        )
    )  # fmt: skip
    assert 0 <= result["tinyface/rank1"] <= 1


def test_faults_of_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.onnx is not a readable ONNX file"):
        open_model(tmp_path / "bad.onnx")
    write_onnx(tmp_path / "any.onnx", 1, "side")
    with pytest.raises(InputError, match=r"of \(batch, 3, S, S\) with a fixed S"):
        open_model(tmp_path / "any.onnx")
    write_onnx(tmp_path / "net.onnx", 1)
    with pytest.raises(InputError, match="says itself which network it holds"):
        open_model(tmp_path / "net.onnx", {"name": "iresnet18"})
    graph = onnx.load(tmp_path / "net.onnx")
    onnx.save(graph, tmp_path / "big.onnx", save_as_external_data=True, size_threshold=0,
              location="big.weights")  # fmt: skip
    before = open_model(tmp_path / "big.onnx").fingerprint()
    weights = tmp_path / "big.weights"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert open_model(tmp_path / "big.onnx").fingerprint() != before
    config = settings(
        f"checkpoint={tmp_path / 'net.onnx'}", "precision=bf16-mixed", "benchmark=[tinyface]",
        "benchmark.tinyface.root=x", folder=tmp_path,
    )  # fmt: skip
    with pytest.raises(InputError, match="an ONNX graph has its own precision"):
        evaluate(config)

    def missing(package: str, *, extra: str) -> None:
        raise InputError(f"this needs the package {package}; pip install 'marginface[{extra}]'")

    monkeypatch.setattr(onnx_network, "require", missing)
    with pytest.raises(InputError, match=r"onnxruntime.*marginface\[export\]"):
        open_model(tmp_path / "net.onnx")


def test_several_devices_give_the_same(run: Path) -> None:
    one = load_embedder(run)
    network, size = one.networks[0], one.image_size
    many = Embedder(network, size, "rgb", devices=["cpu", "cpu", "cpu"])
    faces = SyntheticFaces(run.parent / "faces", identities=3, images_per_identity=5, image_size=32)
    assert torch.equal(one.embed(faces, batch_size=4), many.embed(faces, batch_size=4))


def test_faults_of_checkpoints(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no checkpoint .*none.ckpt; give a run folder"):
        open_model(tmp_path / "none.ckpt")
    with pytest.raises(MissingInputError, match="is no run folder with one"):
        open_model(tmp_path)
    with pytest.raises(InputError, match="was trained in rgb order; color=bgr"):
        open_model(run, color="bgr")
    with pytest.raises(InputError, match="says itself which network it holds"):
        open_model(run, {"name": "iresnet18"})


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "nothing given": (
        [],
        ["2 mistakes", "checkpoint is not set", "benchmark.pairs.files is not set"],
    ),
    "ranges": (
        ["checkpoint=x", "benchmark=[ijbc]", "benchmark.ijbc={root: x, fars: [5], seed: -1}"],
        ["benchmark.ijbc.fars: got [5]", "benchmark.ijbc.seed: got -1"],
    ),
    "a sweep over lists": (
        ["-m", "checkpoint=x", "benchmark=[lfw],[lwf,ijbc]"],
        ["unknown benchmark 'lwf'. Did you mean 'lfw'?"],
    ),
    "no ranks": (
        ["checkpoint=x", "benchmark=[tinyface]", "benchmark.tinyface={root: x, ranks: []}"],
        ["benchmark.tinyface.ranks: got []"],
    ),
    "unknown benchmark": (
        ["checkpoint=x", "benchmark=[lwf,ijbc]"],
        ["unknown benchmark 'lwf'. Did you mean 'lfw'?"],
    ),
    "no root": (["checkpoint=x", "benchmark=[lfw,ijbc]"], ["benchmark.lfw.root is not set"]),
    "types": (
        ["checkpoint=x", "benchmark.pairs.files=[a]", "flip=maybe", "batch_size=0", "precision=8"],
        ["flip: got 'maybe'", "batch_size: got 0", "precision: got 8"],
    ),
    "unknown key": (
        ["checkpoint=x", "benchmark.pairs.files=[a]", "benchmark.pairs.fold=3"],
        ["unknown key benchmark.pairs.fold. Did you mean 'benchmark.pairs.folds'?"],
    ),
    "no list": (["checkpoint=x", "benchmark.pairs.files=a"], ["write benchmark.pairs.files=[a]"]),
    "backbone": (
        ["checkpoint=x", "benchmark.pairs.files=[a]", "backbone=iresnet18", "backbone.pol=flatten"],
        ["unknown key backbone.pol"],
    ),
    "literal": (
        ["checkpoint=x", "benchmark.pairs.files=[a]", "benchmark.pairs.thresholds=best"],
        ["benchmark.pairs.thresholds: got 'best'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_the_command_line(name: str) -> None:
    overrides, words = MISTAKES[name]
    with pytest.raises(InputError) as caught:
        check_command_line("evaluate", overrides, evaluation_problems)
    for part in words:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["lfw", "cfp_fp", "agedb_30", "calfw", "cplfw", "vgg2_fp"],
        ["ijbb", "ijbc", "tinyface", "custom_pairs", "custom_gallery"],
    ],
)
def test_right_command_lines(names: list[str]) -> None:
    roots = [f"benchmark.{name}.root=x" for name in names]
    check_command_line(
        "evaluate",
        ["checkpoint=x", f"benchmark=[{','.join(names)}]", *roots, "backbone=iresnet50"],
        evaluation_problems,
    )
    check_command_line(
        "evaluate",
        ["checkpoint=x", "benchmark=pairs", "benchmark.pairs.files=[a.bin,b.bin]"],
        evaluation_problems,
    )


def test_two_files_of_one_name(run: Path, sets: Path, tmp_path: Path) -> None:
    file = sets / "pairs" / "pairs.csv"
    config = settings(
        f"checkpoint={run}", f"benchmark.pairs.files=[{file},{file}]", folder=tmp_path
    )
    with pytest.raises(InputError, match="two benchmarks are called pairs"):
        evaluate(config)
    config["devices"] = ["cuda:77"]
    with pytest.raises(InputError, match="devices: 'cuda:77' is not there; auto takes all of: cpu"):
        evaluate(config)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    with pytest.raises(InputError, match="holds results already; choose another hydra.run.dir"):
        evaluate(config)


def test_the_command(run: Path, sets: Path, tmp_path: Path, command: Command) -> None:
    done = command(
        "evaluate.py", f"checkpoint={run}", "benchmark=[tinyface]", "num_workers=0",
        f"benchmark.tinyface.root={sets / 'tinyface'}", f"paths.log_dir={tmp_path}",
        f"hydra.run.dir={tmp_path / 'here'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rank1" in done.stdout
    assert f"report {tmp_path / 'here'}/report.html" in done.stdout
    assert (tmp_path / "evaluations" / "all.csv").is_file()


def test_compare(evaluated: Path, run: Path, sets: Path, tmp_path: Path) -> None:
    other = settings(f"checkpoint={run}", *everything(sets), "flip=false", folder=tmp_path)
    evaluate(other)
    page = tmp_path / "page.html"
    folders = [str(evaluated / "out"), str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["compare", *folders, "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "custom_pairs/accuracy" in done.output
    assert "McNemar" in done.output
    html5lib.HTMLParser(strict=True).parse(page.read_text())
    again = CliRunner().invoke(app, ["compare", *folders, "--html", str(page)])
    assert again.exit_code == 2
    alone = CliRunner().invoke(app, ["compare", folders[0]])
    assert alone.exit_code == 2
    mixed = CliRunner().invoke(app, ["compare", folders[0], str(run)])
    assert mixed.exit_code == 2
