"""What the README shows is right: its commands pass the check, its Python runs."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from helpers.paths import ROOT
from marginface.config.command_line import check_command_line
from marginface.data import SyntheticFaces, open_faces
from marginface.data.alignment.template import TEMPLATE
from marginface.data.images import encode_jpeg
from marginface.evaluation.config import evaluation_problems
from marginface.heads import _registry, create_head, head_defaults
from marginface.training.config import train_problems
from marginface.utils.errors import InputError

README = (ROOT / "README.md").read_text()
DOCS = README + "".join(
    (ROOT / "docs" / name).read_text() for name in ("evaluation.md", "classifier.md", "training.md")
)
COMMANDS = [
    line.replace("\\\n", " ").split("#")[0].strip()
    for line in re.findall(r"^python (?:train|evaluate)\.py(?:.*\\\n)*.*$", DOCS, re.MULTILINE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_pass_the_check(command: str) -> None:
    script, *arguments = shlex.split(command)[1:]
    if script == "train.py":
        check_command_line("train", arguments, train_problems)
    else:
        check_command_line("evaluate", arguments, evaluation_problems)


def test_there_are_commands_and_wrong_ones_would_fail() -> None:
    assert len(COMMANDS) >= 11
    with pytest.raises(InputError):
        check_command_line("train", ["sweep=margin"], train_problems)


def test_the_loop_in_plain_pytorch_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (loop,) = [block for block in blocks if "loss.backward()" in block]
    names: dict[str, object] = {}
    exec(loop, names)
    assert names["head"].weight.grad.isfinite().all()  # type: ignore[attr-defined]


def test_the_functions_of_evaluation_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.removeprefix(README), re.DOTALL)
    (block,) = [b for b in blocks if "evaluate_pairs" in b]
    exec(block, {})


@pytest.mark.slow
def test_from_photographs_to_training(tmp_path: Path) -> None:
    """The three commands as printed, on photographs made of aligned faces."""
    block = next(b for b in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "align" in b)
    commands = block.strip().splitlines()
    assert len(commands) == 3
    real = os.environ.get("MARGINFACE_FACES")
    source = (
        open_faces(Path(real) / "train")
        if real
        else SyntheticFaces(tmp_path / "cache", identities=24, images_per_identity=10)
    )
    lines = ["path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"]
    for label in range(24):
        person = tmp_path / "photos" / f"person{label}"
        person.mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(source.labels == label)[:10]):
            angle, scale = np.deg2rad(4 * number - 20), 1.1 + 0.05 * number
            a, b = scale * np.cos(angle), scale * np.sin(angle)
            matrix = np.array([[a, -b, 90 + 3 * label], [b, a, 60 + 2 * number]])
            photo = cv2.warpAffine(source.pixels(int(index)), matrix, (320, 300))
            (person / f"{number}.jpg").write_bytes(encode_jpeg(photo))
            points = (TEMPLATE @ matrix[:, :2].T + matrix[:, 2]).ravel()
            lines.append(",".join([f"person{label}/{number}.jpg", *map(str, points)]))
    (tmp_path / "landmarks.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "train.py").write_text((ROOT / "train.py").read_text())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "offline",
    }
    for command in commands:
        run = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        # Rendered faces do not sit on the template of real ones, which inspect-data says.
        expected = (0, 1) if "inspect-data" in command and not real else (0,)
        assert run.returncode in expected, run.stdout + run.stderr
    assert "heldout" in run.stdout
    assert list((tmp_path / "logs" / "runs").glob("*/*/result.json"))


def test_files_it_links_are_there() -> None:
    texts = {"README.md": README, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()}
    for source, text in texts.items():
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            name, _, heading = target.partition("#")
            path = ROOT / (name or source)
            assert path.is_file(), target
            assert not heading or heading in anchors(path.read_text()), target


def anchors(text: str) -> set[str]:
    """Of the headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings}


def test_short_enough_to_read() -> None:
    assert len(README.splitlines()) < 220


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert f"Version {project['version']} ({citation['date-released']})" in README
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {project['version']} ({citation['date-released']})" in changes


def test_the_head_of_the_readme_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files as printed: its YAML is complete, it has the curve it states and gradients."""
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "MyHead" in b]
    (node,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    # Without the head that somebody who follows the README has added.
    others = {name: margin for name, margin in _registry._MARGINS.items() if name != "myhead"}
    monkeypatch.setattr(_registry, "_MARGINS", others)
    exec(code, {})
    parameters = yaml.safe_load(node)
    assert head_defaults("myhead") == {k: v for k, v in parameters.items() if k != "name"}
    head = create_head(**parameters, embedding_size=4, num_classes=3)
    loss = head(torch.randn(2, 4), torch.tensor([0, 2]))
    loss.backward()
    assert head.weight.grad is not None
    cosine = torch.tensor([1.0, 0.5])
    torch.testing.assert_close(head.target_logit(cosine), cosine - 0.2 * (1 - cosine))
