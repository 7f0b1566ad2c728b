"""The configuration folder, and a composed configuration as plain Python values."""

import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marginface.utils.errors import InputError, first_line, raise_problems
from marginface.utils.nested import flatten

_INTERACTIVE = ("bash", "sh", "interactive")  # many runs in one job


def _run_stamp(now: str) -> str:
    """`now`, or under torchrun and SLURM what is the same in all processes of a job.

    A SLURM job keeps its number when it is requeued, so it continues in the same folder.
    """
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    slurm = os.environ.get("SLURM_JOB_ID")
    if job is None and slurm is not None and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        step = os.environ.get("SLURM_STEP_ID")
        return f"slurm-{slurm}" if step is None else f"slurm-{slurm}-{step}"
    if job is None:
        return now
    # Without --rdzv-id or --standalone the id is "none", but they share their parent process.
    return f"torchrun-{os.getppid()}" if job == "none" else job


OmegaConf.register_new_resolver("run_stamp", _run_stamp, replace=True)


def config_dir() -> Path:
    """The checkout's configs/ when there is one, the copy in the wheel otherwise."""
    here = Path(__file__).resolve().parents[1]
    checkout = here.parents[1] / "configs"
    return checkout if checkout.is_dir() else here / "configs"


def with_own_configs(arguments: list[str]) -> list[str]:
    """A command line that also finds the configurations in ./configs of the user's own project."""
    own = Path.cwd() / "configs"
    if not own.is_dir() or own.resolve() == config_dir().resolve():
        return arguments
    given = any(a == "-cd" or a.startswith("--config-dir") for a in arguments)
    return arguments if given else ["--config-dir", str(own), *arguments]


def own_plugins() -> list[str]:
    """The plugins that ./configs/local/default.yaml of the user's own project names."""
    local = Path.cwd() / "configs" / "local" / "default.yaml"
    if not local.is_file():
        return []
    try:
        content = OmegaConf.to_container(OmegaConf.load(local))
        return list(content.get("plugins") or []) if isinstance(content, dict) else []
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        raise InputError(f"{local} cannot be read: {first_line(error)}") from error


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings, numbers and None.

    Raises:
        InputError: a value that is not set, or a reference to one that is not there.
    """
    raise_problems([not_set(key) for key in missing_keys(config)])
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(str(error).splitlines()[0]) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def missing_keys(config: DictConfig) -> list[str]:
    """Keys whose value is still ???."""
    # OmegaConf.missing_keys resolves references on its way and fails at those to a missing value.
    unresolved = flatten(OmegaConf.to_container(config, resolve=False))
    return sorted(key for key, value in unresolved.items() if value == "???")


def not_set(key: str) -> str:
    """The message for a key without a value."""
    return f"{key} is not set; add {key}=<value>"
