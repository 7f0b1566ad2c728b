"""Projects outside the checkout: `marginface train`, `new`, plugins, the wheel."""

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from helpers.commands import marginface
from helpers.paths import ROOT
from marginface.heads import list_heads
from marginface.heads._registry import _MARGINS
from marginface.utils import plugins
from marginface.utils.errors import InputError

Command = Callable[..., "subprocess.CompletedProcess[str]"]
FAST = [
    "debug=fast", "trainer=cpu", "trainer.max_steps=2", "logger=csv", "backbone.image_size=32",
    "data.dataset.identities=16", "data.dataset.images_per_identity=6", "data.val_identities=5",
    "data.val_pairs=40", "data.batch_size=6",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new project, from which the commands run."""
    monkeypatch.chdir(tmp_path)
    done = marginface("new", "mine")
    assert done.exit_code == 0, done.stderr
    monkeypatch.chdir(tmp_path / "mine")
    before = dict(_MARGINS)
    yield tmp_path / "mine"
    _MARGINS.clear()
    _MARGINS.update(before)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_a_new_project(project: Path) -> None:
    files = sorted(str(p.relative_to(project)) for p in project.rglob("*") if p.is_file())
    assert files == [
        ".gitignore", "README.md", "configs/head/myhead.yaml", "configs/local/default.yaml",
        "mine/__init__.py", "mine/heads.py",
    ]  # fmt: skip
    assert len((project / "README.md").read_text().splitlines()) <= 12
    again = marginface("new", str(project))
    assert (again.exit_code, "exists; choose another name" in again.stderr) == (2, True)
    taken = marginface("new", "torch")
    assert (taken.exit_code, "'torch' is a package that is installed" in taken.stderr) == (2, True)
    wrong = marginface("new", "my-project")
    assert (wrong.exit_code, "'my-project' cannot be imported" in wrong.stderr) == (2, True)


def test_its_head_is_listed(project: Path) -> None:
    done = marginface("heads")
    assert done.exit_code == 0, done.stderr
    assert "myhead (" in done.stdout
    assert "a steeper cosine" in done.stdout


def test_its_head_is_trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from marginface.config import compose
    from marginface.training import train

    config = compose("train", [*FAST, "head=myhead", f"hydra.run.dir={project / 'run'}"])
    assert config["plugins"] == ["mine.heads"]
    assert "val/mean/accuracy" in train(config)
    assert "myhead" in list_heads()


def test_a_plugin_of_a_package_that_is_installed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        wanted = group == "marginface.heads"
        return [EntryPoint("mine", "mine.heads", "marginface.heads")] if wanted else []

    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", entry_points)
    monkeypatch.syspath_prepend(str(project))
    plugins.load_plugins([])
    assert "myhead" in list_heads()


WRONG = {
    "no.such": ("", r"plugins=\[no.such\]: there is no module no.such. Install its package"),
    "needs": ("import no_such_package", "needs needs no_such_package, which is not installed"),
    "fails": ("1 / 0", r"fails cannot be imported \(ZeroDivisionError: division by zero\)"),
    "twice": (
        "from marginface.heads import Margin, register_head\n"
        "register_head('arcface')(type('Mine', (Margin,), {}))",
        "twice cannot be imported .*'arcface' is already registered",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_plugins_that_cannot_be_imported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = WRONG[name]
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=message):
        plugins.load_plugins([name])


def test_a_head_without_its_plugin_says_what_to_do() -> None:
    from marginface.heads import head_problems

    (problem,) = head_problems({"name": "myhead"})
    assert "Heads of your own are made known by plugins=[<module>]" in problem


def test_resuming_without_the_plugin_names_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "run").mkdir()
    (project / "run" / "config.yaml").write_text("plugins: [mine.heads]\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "head=myhead", "hydra.run.dir=run", "plugins=[]"])
    from marginface.cli.train import main

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "unknown head 'myhead'" in said
    assert "run was begun with plugins of its own; add plugins=[mine.heads]" in said


def test_a_network_without_its_plugin_is_named(tmp_path: Path) -> None:
    import torch

    from marginface.inference.open_model import open_model

    backbone = {"name": "my_net", "image_size": 112, "color": "rgb", "weights": None}
    config = {"backbone": backbone, "plugins": ["mine.nets"]}
    torch.save({"marginface": {"description": {"config": config}}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"network 'my_net' .* add plugins=\[mine.nets\]"):
        open_model(tmp_path / "a.ckpt").build()


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, marginface, marginface.cli.main\n"
        "from typer.testing import CliRunner\n"
        "done = CliRunner().invoke(marginface.cli.main.app, ['--help'])\n"
        "assert 'inspect-data' in done.output, done.output\n"
        "print([name for name in ('torch', 'lightning', 'cv2', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_has_help() -> None:
    from marginface.cli.main import COMMANDS

    for name in COMMANDS.keys() - {"train", "evaluate"}:  # those are Hydra's, in other tests
        done = marginface(name, "--help")
        assert done.exit_code == 0, (name, done.output)
        assert "Usage" in done.output
    unknown = marginface("pakc")
    assert unknown.exit_code == 2
    assert "No such command 'pakc'" in unknown.output


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a virtual environment of its own; what it needs is taken from this one."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")]
    subprocess.run(venv, check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (needed,) = {path for path in sys.path if path.endswith("site-packages")}
    (site / "needed.pth").write_text(needed)
    return folder / "venv" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.first
def test_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """New project, own head, two processes, a sweep of two, an evaluation."""

    def run(*arguments: str, cwd: Path) -> str:
        code = "from marginface.cli.main import app; app()"
        done = subprocess.run(
            [str(installed), "-c", code, *arguments],
            cwd=cwd, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [str(installed), "-c", "import marginface; print(marginface.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(installed.parents[1]) in where
    run("new", "p", cwd=tmp_path)
    fast = [*FAST, f"paths.cache_dir={tmp_path / 'cache'}"]
    one = run("train", "head=myhead", *fast, "hydra.run.dir=one", cwd=tmp_path / "p")
    assert "head myhead:" in one
    two = [*fast, "trainer=ddp_gloo", "trainer.devices=2", "hydra.run.dir=two"]
    run("train", "head=myhead", *two, cwd=tmp_path / "p")
    assert (tmp_path / "p" / "two" / "result.json").is_file()
    sweep = run("train", "-m", "head=myhead,arcface", *fast, cwd=tmp_path / "p")
    assert "comparison" in sweep
    run("pairs", "--help", cwd=tmp_path)
    evaluated = run(
        "evaluate", "checkpoint=one", *own_pairs(tmp_path / "p"), "benchmark.pairs.bootstrap=5",
        "num_workers=0", "hydra.run.dir=e", cwd=tmp_path / "p",
    )  # fmt: skip
    assert "accuracy" in evaluated
    run("export", "one", "one.onnx", "--input", "uint8", cwd=tmp_path / "p")
    pair = ["faces/p0/0.jpg", "faces/p0/0.jpg"]
    assert "same: cosine 1.0" in run("verify", "one.onnx", *pair, "--aligned", cwd=tmp_path / "p")
    listed = run("heads", cwd=tmp_path / "p")
    assert "myhead (" in listed


def own_pairs(folder: Path) -> list[str]:
    """A small pair file, and where its images are."""
    from helpers.pictures import make_folder

    make_folder(folder / "faces", [2] * 20, size=32)
    lines = ["first,second,same"]
    for number in range(20):
        other = (number + 1) % 20
        lines += [f"p{number}/0.jpg,p{number}/1.jpg,1", f"p{number}/0.jpg,p{other}/1.jpg,0"]
    (folder / "pairs.csv").write_text("\n".join(lines))
    return ["benchmark.pairs.root=faces", "benchmark.pairs.files=[../pairs.csv]"]
