"""Mistakes end with one message, exit code 2 and no traceback; help is worth reading."""

import os
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.paths import ROOT
from marginface.config.command_line import check_command_line
from marginface.config.quoting import parsed, with_quotes
from marginface.data import write_recordio
from marginface.data.images import encode_jpeg
from marginface.training.config import train_problems
from marginface.utils.errors import InputError

Command = Callable[..., "subprocess.CompletedProcess[str]"]


class Attack:
    """A pickle that runs a command when loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.marker}",))


def problems_of(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        check_command_line("train", list(overrides), train_problems)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head=x2sofmax", "unknown head 'x2sofmax'. Did you mean 'x2softmax'? Known: adacos,"),
        ("head.scal=3", "unknown key head.scal. Did you mean 'head.scale'?"),
        ("trainer.max_step=3", "unknown key trainer.max_step. Did you mean 'trainer.max_steps'?"),
        ("hed=arcface", "unknown key hed. Did you mean 'head'?"),
        ("backbone=iresnet51", "unknown backbone 'iresnet51'. Did you mean 'iresnet50'?"),
        ("backbone=convnext_atto", "backbone=timm backbone.name=convnext_atto"),
        ("backbone.name=iresnet51", "unknown backbone 'iresnet51'. Did you mean"),
        ("trainer.max_steps=many", "trainer.max_steps: got 'many'"),
        ("trainer.devices=[a]", "trainer.devices"),
        ("trainer.precision=15", "trainer.precision: got 15"),
        ("+trainer.max_epoch=3", "unknown key trainer.max_epoch. Did you mean 'max_epochs'?"),
        ("+optimizer.momentun=0.9", "unknown key optimizer.momentun. Did you mean 'momentum'?"),
        ("optimizer.lr=fast", "optimizer.lr: got 'fast'"),
        ("head.a=0.1", "x2softmax: a must be negative"),
        ("head.scale='64'", "head.scale: got '64'. A str where a float is expected"),
        ("head.margin_gradient=exct", "head.margin_gradient: got 'exct'"),
        ("+head.m=0.5", "unknown key head.m."),
        ("data=folder", "data.root is not set; add data.root=<value>"),
        ("data.pairs=a.bin", "write data.pairs=[a.bin]"),
        ("augmentation.flip=x", "augmentation.flip: got 'x'"),
        ("seed=null", "seed: got None"),
        ("callbacks.checkpoint._target_=marginface.callbacks.Nothing", "cannot import"),
        ("experiment=nothing", "unknown experiment 'nothing'"),
        ("backbone.color=gbr", "backbone.color: got 'gbr'"),
        ("head=[", "cannot read the override head=["),
        ("+head.num_classes=3", "unknown key head.num_classes"),
        ("+scheduler.total_steps=3", "unknown key scheduler.total_steps"),
        ("hydra.run.dri=x", "unknown key hydra.run.dri. Did you mean 'hydra.run.dir'?"),
        ("seed=-1", "seed must be in [0, 2^32), got -1"),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("scheduler.warmup_epochs=-1", "scheduler.warmup_epochs: got -1. Input should be greater"),
        ("augmentation.flip=0.3", "augmentation.flip must be 0 or 0.5, got 0.3"),
        ("data.num_workers=-1", "data.num_workers: got -1. Input should be greater than or equal"),
        ("data.val_identities=-1", "data.val_identities: got -1. Input should be greater"),
        ("data.batch_size=0", "data.batch_size: got 0. Input should be greater than or equal to 1"),
    ],
)
def test_each_mistake_in_words(override: str, message: str) -> None:
    assert message in problems_of(override)


def test_all_mistakes_in_one_message() -> None:
    message = problems_of("head=arcfase", "trainer.max_step=3", "optimizer.lr=fast", "data=folder")
    assert message.startswith("4 mistakes in the configuration:")
    for part in ("'arcface'", "trainer.max_steps", "optimizer.lr", "data.root is not set"):
        assert part in message


def test_every_choice_of_a_sweep_is_checked() -> None:
    message = problems_of("-m", "head=x2softmax,arcfase", "optimizer.lr=0.1,fast")
    assert "'arcface'" in message
    assert "optimizer.lr: got 'fast'" in message


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["head=arcface", "head.margin=0.4", "trainer.devices=8", "trainer=ddp"],
        ["-m", "head=x2softmax,arcface", "seed=1,2"],
        ["optimizer=adamw", "scheduler=poly", "backbone=timm", "backbone.name=resnet18"],
        ["data=recordio", "data.root=somewhere", "data.pairs=[a.bin,b.bin]"],
        ["+trainer.max_time=00:01:00:00", "~callbacks.progress", "logger=many"],
        ["--help"],
        ["-m", "hydra.run.dir=somewhere", "hydra/launcher=basic", "head=glob(*face)"],
        ["experiment=faces_demo", "data.root=somewhere", "head=softmax"],
        ["experiment=faces_demo_bf16", "data.root=somewhere"],
    ],
)
def test_right_command_lines_pass(overrides: list[str]) -> None:
    check_command_line("train", overrides, train_problems)


def write_bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Overrides and a part of the message for each bad input of the data."""
    picture = encode_jpeg(np.zeros((112, 112, 3), np.uint8))
    for name in ("empty", "one", "cut", "beyond", "label"):
        (folder / name).mkdir()
    (folder / "one" / "alice").mkdir()
    (folder / "one" / "alice" / "1.jpg").write_bytes(picture)
    for name in ("cut", "beyond", "label"):
        write_recordio(folder / name, [picture] * 4, [0, 0, 1, 1])
    rec = folder / "cut" / "train.rec"
    rec.write_bytes(rec.read_bytes()[:-300])
    with (folder / "beyond" / "train.idx").open("a") as index:
        index.write("77\t12345678\n")
    (folder / "label" / "property").write_text("1,112,112\n")
    evil = pickle.dumps(([Attack(folder / "ran")], [True]))
    (folder / "evil.bin").write_bytes(evil)

    def data(kind: str, name: str) -> list[str]:
        return [f"data={kind}", f"data.root={folder / name}"]

    return {
        "missing folder": (data("folder", "absent"), "no folder"),
        "empty folder": (data("folder", "empty"), "holds no images"),
        "one identity": (data("folder", "one"), "num_classes=1"),
        "truncated record": (data("recordio", "cut"), "truncated"),
        "index beyond the file": (data("recordio", "beyond"), "record 77 at byte 12345678"),
        "label outside range": (data("recordio", "label"), "label 1 of image 2 is outside [0, 1)"),
        "code in a pair file": ([f"data.pairs=[{folder / 'evil.bin'}]"], "refused"),
        "unknown head": (["head=x2sofmax"], "Did you mean 'x2softmax'"),
    }


CASES = [
    "missing folder", "empty folder", "one identity", "truncated record", "index beyond the file",
    "label outside range", "code in a pair file", "unknown head",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_in_this_process(
    case: str,
    tiny_run: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from marginface.cli.train import main

    overrides, message = write_bad_inputs(tmp_path)[case]
    fitting = [o for o in tiny_run if not (o.startswith("data.") and overrides[0][:5] == "data=")]
    run_dir = f"hydra.run.dir={tmp_path / 'run'}"
    monkeypatch.setattr("sys.argv", ["train.py", *fitting, *overrides, run_dir])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_bad_input_ends_the_process_with_2(command: Command, tmp_path: Path) -> None:
    overrides, message = write_bad_inputs(tmp_path)["truncated record"]
    done = command("train.py", *overrides, "logger=csv", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "run" / "train.log").read_text() == done.stdout + done.stderr


def test_a_fault_in_a_worker_is_one_line(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from marginface.cli.train import main

    for person in ("alice", "bob"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for k in range(8):
            (tmp_path / "faces" / person / f"{k}.jpg").write_text("no image")
    overrides = [o for o in tiny_run if not o.startswith("data.")]
    overrides += ["data=folder", f"data.root={tmp_path / 'faces'}", "data.num_workers=1"]
    overrides += ["data.batch_size=4", f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr("sys.argv", ["train.py", *overrides])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(lines) == 1
    assert "not a decodable image" in lines[0]


def test_help(command: Command) -> None:
    done = command("-X", "importtime", "train.py", "--help")
    assert done.returncode == 0
    # Whoever only asks does not wait for what trains.
    assert not re.search(r"\| +(torch|lightning|timm)$", done.stderr, re.MULTILINE)
    assert re.search(r"\| +hydra$", done.stderr, re.MULTILINE)
    for part in ("head: adacos", "python train.py -m head=", "trainer.devices=8", "== groups"):
        assert part in done.stdout


def test_console_script_lists_heads(command: Command) -> None:
    done = command("-c", "from marginface.cli.main import app; app()", "heads")
    assert done.returncode == 0
    assert "x2softmax" in done.stdout
    assert "a=-0.9" in done.stdout


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("checkpoint=runs/epoch=3-step=100.ckpt", "runs/epoch=3-step=100.ckpt"),
        ("data.root=/faces/a (1)", "/faces/a (1)"),
        ("data.root=/Gesichter/Zürich", "/Gesichter/Zürich"),
        ("data.root=/faces/a,b", "/faces/a,b"),
        ('data.root=/faces/5" wide = big', '/faces/5" wide = big'),
        ("data.root=C:\\faces=new\\", "C:\\faces=new\\"),
        ("data.root=it's = mine", "it's = mine"),
        ("data.pairs=[/a b/c=d.bin,e.bin]", ["/a b/c=d.bin", "e.bin"]),
        ("data.pairs=[a.bin,b.bin]", ["a.bin", "b.bin"]),  # nothing to do
        ("name=plain", "plain"),
    ],
)
def test_values_are_quoted_where_it_is_needed(
    argument: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    key = argument.partition("=")[0]
    (quoted,) = with_quotes([argument])
    override = parsed(quoted)
    assert override is not None
    assert override.value() == value
    assert not override.is_sweep_override()
    printed = capsys.readouterr().err
    if quoted == argument:
        assert printed == ""
    else:
        assert printed == (
            f"warning: the override {argument} is read as {quoted}; in a shell write '{quoted}'\n"
        )
        assert with_quotes([quoted]) == [quoted]
    assert quoted.startswith(f"{key}=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint", "=", "X"], "write checkpoint=X, without blanks around ="),
        (["checkpoint", "=X"], "write checkpoint=X, without blanks around ="),
        (["checkpoint"], "checkpoint has no value; write checkpoint=<value>"),
        (["--checkpoint", "X"], "--checkpoint is no option; .* no dashes: checkpoint=X"),
        (["--data.root=X"], "--data.root=X is no option; .* no dashes: data.root=X"),
        (["data.pairs=[a.bin"], "data.pairs=.a.bin: a bracket of the list is missing"),
        (["data.pairs=a.bin]"], "a bracket of the list is missing"),
        (["data.pairs=['a.bin]"], "the quote ' is not closed"),
        (['name="a'], 'the quote " is not closed'),
    ],
)
def test_what_is_no_override(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_quotes(arguments)


def test_several_values_without_a_sweep() -> None:
    with pytest.raises(InputError) as caught:
        with_quotes(["optimizer.lr=0.1,0.2"])
    assert str(caught.value).startswith("optimizer.lr=0.1,0.2 has several values: -m runs each")
    assert with_quotes(["-m", "optimizer.lr=0.1,0.2"]) == ["-m", "optimizer.lr=0.1,0.2"]


def test_an_override_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InputError, match=r"cannot read the override head=\[ "):
        check_command_line("train", ["debug=fast", "head=["])
    assert with_quotes(["-m", "--config-dir", "x", "head=a", "~callbacks.progress"])[0] == "-m"


def test_a_sweep_that_searches_what_is_not_there() -> None:
    words = "sweep=optuna searches head.k and head.a, which head=arcface does not have"
    with pytest.raises(InputError, match=words):
        check_command_line("train", ["-m", "sweep=optuna", "head=arcface"])


@pytest.mark.parametrize("sweep", sorted(path.stem for path in (ROOT / "configs/sweep").glob("*")))
def test_prepared_sweeps_are_right(sweep: str) -> None:
    check_command_line("train", ["-m", f"sweep={sweep}"])


def test_a_sweep_without_m_is_a_mistake() -> None:
    with pytest.raises(InputError, match="sweep=heads describes several runs; add -m before it"):
        check_command_line("train", ["sweep=heads"])
    check_command_line("train", ["-m", "sweep=heads"])
    check_command_line("train", ["sweep=heads", "hydra.mode=RUN"])


def test_an_interval_of_a_search_is_checked_by_its_lower_end() -> None:
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"]
    check_command_line("train", [*search, "optimizer.lr=tag(log, interval(0.01, 0.3))"])
    with pytest.raises(InputError, match="head.kk"):
        check_command_line("train", [*search, "head.kk=interval(0.4, 0.8)"])
    with pytest.raises(InputError, match="scale"):
        check_command_line("train", [*search, "head.scale=interval(-1.0, 2.0)"], train_problems)
