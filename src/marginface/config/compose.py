"""Compose a configuration in Python as the command line would."""

import os
from pathlib import Path
from typing import Any

import hydra
from omegaconf import open_dict

from marginface.config.command_line import check_command_line
from marginface.config.quoting import with_quotes
from marginface.config.resolve import config_dir, to_plain, with_own_configs

_RUN_DIR = "MARGINFACE_RUN_DIR"  # inherited by the processes that this one starts


def compose(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """What `python train.py OVERRIDES...` would run, as plain Python values.

    Args:
        config_name: "train" or "evaluate".
        overrides: as on the command line: ["debug=fast", "head=arcface"]. The run folder is
            hydra.run.dir, by default a new one below logs/.

    Raises:
        InputError: unknown groups, options and keys, with the nearest known ones.
    """
    overrides = with_quotes(overrides)
    arguments = with_own_configs(overrides)
    check_command_line(config_name, arguments)
    if arguments != overrides:
        overrides = [f"hydra.searchpath=[file://{arguments[1]}]", *overrides]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = hydra.compose(config_name, overrides=overrides, return_hydra_config=True)
    run_dir = _run_dir_of_all_processes(Path(str(config.hydra.run.dir)).absolute())
    with open_dict(config):
        del config["hydra"]
        config.paths.run_dir = str(run_dir)
    return to_plain(config)


def _run_dir_of_all_processes(folder: Path) -> Path:
    """`folder` on the first process; elsewhere what the first process composed.

    Processes that the first one starts run the user's script again, a second or two later.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[_RUN_DIR] = str(folder)
    return Path(os.environ.get(_RUN_DIR, folder))
