"""`python evaluate.py`: from files to a report, and what can be wrong."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import html5lib
import pytest
import torch

from helpers.evaluations import everything, settings
from marginface import backbones
from marginface.backbones import create_backbone
from marginface.config.command_line import check_command_line
from marginface.data import load_pairs
from marginface.evaluation.benchmarks import PairsBenchmark
from marginface.evaluation.config import evaluation_problems
from marginface.evaluation.run import evaluate
from marginface.inference.embedder import Embedder, load_embedder
from marginface.metrics.verification import evaluate_pairs
from marginface.utils.errors import InputError

Command = Callable[..., "subprocess.CompletedProcess[str]"]


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

    monkeypatch.setattr(backbones, "create_backbone", never)
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


def test_embeddings_without_faulty_images_are_not_those_of_all(
    run: Path, sets: Path, tmp_path: Path
) -> None:
    """The cache has rows of NaN for them, which must not be taken for a network's."""
    shutil.copytree(sets / "pairs", tmp_path / "pairs")
    (tmp_path / "pairs" / "s0" / "0.png").write_bytes(b"no image")

    def evaluated(faulty: str) -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        evaluate(
            settings(
                f"checkpoint={run}", "benchmark=[custom_pairs]",
                f"benchmark.custom_pairs.root={tmp_path / 'pairs'}",
                f"benchmark.custom_pairs.faulty={faulty}", "benchmark.custom_pairs.bootstrap=3",
                folder=tmp_path,
            )
        )  # fmt: skip

    evaluated("skip")
    with pytest.raises(InputError, match=r"s0/0.png: not a decodable image"):
        evaluated("stop")


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


def test_pairs_across_two_networks(run: Path, sets: Path, tmp_path: Path) -> None:
    wanted = ["benchmark=custom_pairs", f"benchmark.custom_pairs.root={sets / 'pairs'}",
              "benchmark.custom_pairs.bootstrap=5"]  # fmt: skip
    alone = evaluate(settings(f"checkpoint={run}", *wanted, folder=tmp_path / "alone"))
    same = evaluate(
        settings(
            f"checkpoint={run}", *wanted, f"gallery_checkpoint={run}", folder=tmp_path / "same"
        )
    )
    assert {k: v for k, v in alone.items() if k in same} == same
    # Another network: each side by its own.
    other = create_backbone("miniresnet8_half", image_size=32, embedding_size=512)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    pairs = load_pairs(sets / "pairs" / "pairs.csv", image_size=32)
    first, second = load_embedder(run)(pairs.images), Embedder(other, 32, "rgb")(pairs.images)
    mixed = torch.stack([first[pairs.pairs[:, 0]], second[pairs.pairs[:, 1]]], 1).flatten(0, 1)
    expected = evaluate_pairs(mixed, torch.from_numpy(pairs.same))
    task = PairsBenchmark(["pairs.csv"], root=str(sets / "pairs"), bootstrap=5).tasks("p", 32)[0]
    assert task.evaluate_across is not None
    found = task.evaluate_across(first, second)
    assert found.metrics["accuracy"].value == expected.accuracy
    assert found.metrics["auc"].value == pytest.approx(expected.auc)
    assert found.thresholds == []


def test_galleries_have_no_two_sides(run: Path, sets: Path, tmp_path: Path) -> None:
    config = settings(
        f"checkpoint={run}", "benchmark=custom_gallery", f"gallery_checkpoint={run}",
        f"benchmark.custom_gallery.root={sets / 'gallery'}",
        "benchmark.custom_gallery.fpirs=[0.25]", folder=tmp_path,
    )  # fmt: skip
    with pytest.raises(InputError, match="two sides of pairs; custom_gallery has none"):
        evaluate(config)
