"""A new head is two new files: it is found, configured, checked, trained and listed."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from helpers.paths import ROOT
from helpers.runs import losses

Command = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = '''
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
'''

YAML = "name: halfway\nshare: 0.5\nloss: cross_entropy\n"


def test_two_new_files(tiny_run: list[str], tmp_path: Path, command: Command) -> None:
    for part in ("src", "configs"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / "src" / "marginface" / "heads" / "halfway.py").write_text(HEAD)
    (tmp_path / "configs" / "head" / "halfway.yaml").write_text(
        "name: halfway\nshare: 0.5\nloss: cross_entropy\n"
    )
    here = {"cwd": tmp_path, "PYTHONPATH": str(tmp_path / "src")}
    run = [*tiny_run, "head=halfway", "head.share=0.4", "trainer.max_steps=2"]
    done = command("train.py", *run, f"hydra.run.dir={tmp_path / 'run'}", **here)
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 2
    listed = command("-c", "from marginface.cli.main import app; app()", "heads", **here)
    assert "halfway" in listed.stdout
    assert "share=0.5" in listed.stdout
    wrong = command("train.py", *tiny_run, "head=halfway", "head.shar=1", **here)
    assert wrong.returncode == 2
    assert "Did you mean 'head.share'" in wrong.stderr
