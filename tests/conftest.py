"""Shared fixtures: where golden values and real faces are, and a training run of seconds."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.paths import ROOT

# Tests are many small jobs: threads would only wait for each other. Bit-equality between this
# process and those it starts needs the same number in both.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, or one processor would wait for the other at the end."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


def _folder_from_environment(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Values computed with the official implementations; $MARGINFACE_GOLDEN."""
    return _folder_from_environment("MARGINFACE_GOLDEN")


@pytest.fixture(scope="session")
def faces() -> Path:
    """Real faces; $MARGINFACE_FACES."""
    return _folder_from_environment("MARGINFACE_FACES")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make any training run take seconds: few small synthetic faces on the CPU."""
    cache = tmp_path_factory.mktemp("cache")
    return [
        "trainer=cpu",
        "backbone.image_size=32",
        "data.dataset.identities=16",
        "data.dataset.images_per_identity=6",
        "data.val_identities=5",
        "data.val_pairs=40",
        "data.batch_size=6",
        "data.num_workers=0",
        "logger=csv",
        "callbacks.progress=null",
        "validate_untrained=false",
        "trainer.log_every_n_steps=1",
        f"paths.cache_dir={cache}",
    ]


@pytest.fixture(scope="session")
def run(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of seconds."""
    from helpers.runs import compose
    from marginface.training import train

    folder = tmp_path_factory.mktemp("run")
    train(compose(*tiny_run, "trainer.max_steps=3", "data.val_identities=0", run_dir=folder))
    return folder


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One benchmark of each kind."""
    from helpers.benchmark_sets import write_gallery, write_ijb, write_pairs_csv, write_tinyface

    root = tmp_path_factory.mktemp("sets")
    write_pairs_csv(root / "pairs")
    write_ijb(root / "ijb")
    write_tinyface(root / "tinyface")
    write_gallery(root / "gallery", strangers=True)
    return root


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python command line of the project in a process of its own, for a bounded time."""

    def run(
        *arguments: str, timeout: float = 240, cwd: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
