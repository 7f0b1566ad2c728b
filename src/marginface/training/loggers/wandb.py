"""The W&B logger: offline unless the user is logged in or sets WANDB_MODE."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from marginface.utils.console import rank_zero_print

WANDB_HOST = "api.wandb.ai"


def wandb_logger(
    *,
    save_dir: str,
    name: str,
    project: str = "marginface",
    group: str | None = None,
    job_type: str = "train",
    tags: list[str] | None = None,
    mode: str | None = None,
    entity: str | None = None,
) -> WandbLogger:
    """A WandbLogger that continues its run when the same folder is used again.

    Args:
        save_dir: the run folder; holds the files of an offline run and the run's id.
        name, project, group, job_type, tags, entity: as W&B knows them.
        mode: online, offline or disabled; null decides by WANDB_MODE, then by being logged in.
    """
    mode = mode or os.environ.get("WANDB_MODE") or ("online" if is_logged_in() else "offline")
    if mode == "offline":
        rank_zero_print(f"W&B runs offline; `wandb sync {save_dir}/wandb/offline-run-*` uploads it")
    return WandbLogger(
        save_dir=save_dir,
        name=name,
        project=project,
        group=group,
        job_type=job_type,
        tags=tags,
        entity=entity,
        id=_run_id(Path(save_dir) / "wandb_id"),
        mode=mode,
        settings={"console": "off", "silent": True},
    )


def is_logged_in() -> bool:
    """Whether an API key is there: WANDB_API_KEY or the entry `wandb login` makes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(path).authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(path: Path) -> str | None:
    """The id in `path`, written there by the first process of a new run."""
    if not path.is_file():
        _write_id(path)
    return path.read_text().strip() if path.is_file() else None


@rank_zero_only
def _write_id(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(secrets.token_hex(4) + "\n")


def log_images(loggers: list[Any], images: dict[str, Path]) -> None:
    """Send pictures to the loggers that take any."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for key, path in images.items():
                logger.log_image(key=key, images=[str(path)])
