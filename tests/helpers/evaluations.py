"""Configurations of evaluations in tests."""

from pathlib import Path
from typing import Any

import hydra

from marginface.config import config_dir, to_plain


def settings(*overrides: str, folder: Path) -> dict[str, Any]:
    """The resolved configuration of an evaluation that writes below `folder`."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = hydra.compose("evaluate", overrides=list(overrides))
    config.paths.log_dir = str(folder / "logs")
    config.paths.run_dir = str(folder / "out")
    config.num_workers = 0
    return to_plain(config)


def everything(sets: Path) -> list[str]:
    """Overrides: one benchmark of each kind, in the folder of the fixture `sets`."""
    return [
        "benchmark=[custom_pairs,ijbc,tinyface,custom_gallery]",
        f"benchmark.custom_pairs.root={sets / 'pairs'}",
        f"benchmark.ijbc.root={sets / 'ijb'}",
        f"benchmark.tinyface.root={sets / 'tinyface'}",
        f"benchmark.custom_gallery.root={sets / 'gallery'}",
        "benchmark.custom_gallery.fpirs=[0.25]",
        *(f"benchmark.{b}.bootstrap=20" for b in ("custom_pairs", "ijbc", "tinyface")),
    ]
