"""A new head, data format or backbone is one file and one YAML: found, checked, trained, listed."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.pictures import make_folder
from helpers.runs import losses

Command = Callable[..., "subprocess.CompletedProcess[str]"]

# Path below the checkout: content.
HEAD = {
    "src/marginface/heads/halfway.py": '''
from torch import Tensor

from marginface.heads import Margin, register_head


@register_head("halfway")
class Halfway(Margin):
    """Target logit halfway between cos and -1."""

    def __init__(self, *, share: float = 0.5) -> None:
        super().__init__(scale=16.0, margin_gradient="exact")
        self.share = share

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.share * (cosine + 1)
''',
    "configs/head/halfway.yaml": "name: halfway\nshare: 0.5\nloss: cross_entropy\n",
}

FORMAT = {
    "src/marginface/data/formats/named.py": '''
from pathlib import Path
from typing import Unpack

import numpy as np

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats import register_format


@register_format("named", suffixes=(".named",))
class NamedDataset(FaceDataset):
    """A file with the path of an image and a label in each line, counted backwards."""

    def __init__(self, root: str | Path, **options: Unpack[ReadingOptions]) -> None:
        self.root = Path(root)
        lines = [line.split("|") for line in self.root.read_text().splitlines()]
        self.files = [name for name, _ in lines]
        labels = np.array([-int(label) for _, label in lines])
        super().__init__(labels, where=str(root), **options)

    def image_bytes(self, index: int) -> bytes:
        return (self.root.parent / self.files[index]).read_bytes()
''',
    "configs/data/named.yaml": """
defaults: [common/faces@_here_]
name: named
dataset:
  _target_: marginface.data.formats.named.NamedDataset
  root: ${data.root}
""",
}

BACKBONE = {
    "src/marginface/backbones/meannet.py": '''
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from marginface.backbones.input_size import face_cfg


class MeanNet(nn.Module):
    """The mean of 4 x 4 parts of the image, and a matrix."""

    def __init__(self, num_classes: int = 512, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        self.num_features = num_classes
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * in_chans, num_classes),
            nn.BatchNorm1d(num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


default_cfgs = generate_default_cfgs({"meannet": face_cfg(first_conv=None, classifier="layers.2")})


@register_model
def meannet(pretrained: bool = False, **kwargs: Any) -> MeanNet:
    return build_model_with_cfg(MeanNet, "meannet", pretrained, **kwargs)
''',
    "configs/backbone/meannet.yaml": """
name: meannet
embedding_size: 16
image_size: 112
pool: model
dropout: 0.0
weights: null
color: rgb
""",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with one more head, format and backbone."""
    root = tmp_path_factory.mktemp("checkout")
    for part in ("src", "configs"):
        shutil.copytree(ROOT / part, root / part)
    shutil.copy(ROOT / "train.py", root)
    for files in (HEAD, FORMAT, BACKBONE):
        for name, content in files.items():
            (root / name).write_text(content)
    return root


@pytest.mark.slow
def test_they_train_together(
    checkout: Path, tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    faces = make_folder(tmp_path / "faces", [3] * 6, size=32)
    lines = [
        f"{p.relative_to(tmp_path)}|-{p.parent.name[1:]}" for p in sorted(faces.rglob("*.jpg"))
    ]
    (tmp_path / "set.named").write_text("\n".join(lines))
    done = command(
        "train.py",
        *(setting for setting in tiny_run if not setting.startswith("data.dataset.")),
        "head=halfway",
        "head.share=0.4",
        "backbone=meannet",
        "data=named",
        f"data.root={tmp_path / 'set.named'}",
        "data.val_identities=0",
        "trainer.max_steps=2",
        f"hydra.run.dir={tmp_path / 'run'}",
        cwd=checkout,
        PYTHONPATH=str(checkout / "src"),
    )
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 2
    assert "18 images of 6 identities" in done.stdout


def test_the_tests_of_all_heads_pass(checkout: Path, command: Command) -> None:
    shutil.copytree(ROOT / "tests", checkout / "tests")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    done = command(
        *("-m", "pytest", "-m", "not slow and not long", "-k", "halfway"),
        *("tests/heads", "tests/training/test_every_head.py", "tests/classifier/test_fused.py"),
        cwd=checkout,
        PYTHONPATH=str(checkout / "src"),
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


LISTING = """
import sys
from marginface.cli.main import app
from marginface.cli.train import main
from typer.testing import CliRunner
print(CliRunner().invoke(app, ["heads"]).stdout)
print(CliRunner().invoke(app, ["pack", "--help"]).stdout)
sys.argv = ["train.py", "head=halfway", "head.shar=1"]
try:
    main()
except SystemExit as end:
    print("exit code", end.code)
"""


def test_they_are_listed_and_checked(checkout: Path, command: Command) -> None:
    done = command("-c", LISTING, cwd=checkout, PYTHONPATH=str(checkout / "src"))
    assert done.returncode == 0, done.stderr
    for words in ("halfway (", "share=0.5", "named", "exit code 2"):
        assert words in done.stdout, words
    assert "Did you mean 'head.share'" in done.stderr
