"""The W&B logger: offline unless the user is logged in or sets WANDB_MODE, and without a server."""

import netrc
import os
import secrets
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from marginface.runs.folder import RunFolder
from marginface.utils.console import is_first_process, rank_zero_print, rank_zero_warn
from marginface.utils.errors import first_line

WANDB_HOST = "api.wandb.ai"
_SECONDS_TO_ANSWER = 5.0
_SECONDS_TO_BEGIN = 20


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
            Where online cannot be had, a warning says why, and the run goes on offline.
    """
    mode = mode or os.environ.get("WANDB_MODE") or ("online" if is_logged_in() else "offline")
    if mode == "online" and is_first_process() and (reason := _why_not_online()):
        rank_zero_warn(f"W&B runs offline: {reason}")
        mode = "offline"
    if mode == "offline":
        rank_zero_print(f"W&B runs offline; `wandb sync {save_dir}/wandb/offline-run-*` uploads it")
    return PatientWandbLogger(
        save_dir=save_dir,
        name=name,
        project=project,
        group=group,
        job_type=job_type,
        tags=tags,
        entity=entity,
        id=_run_id(Path(save_dir) / "wandb_id"),
        mode=mode,
        settings={"console": "off", "silent": True, "init_timeout": _SECONDS_TO_BEGIN},
    )


class PatientWandbLogger(WandbLogger):
    """Goes on offline when the server refuses a run."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun on first use."""
        import wandb  # not by runs that log elsewhere: it takes a second

        try:
            return super().experiment
        except (wandb.errors.Error, OSError) as error:
            if self._wandb_init["mode"] != "online":
                raise
            rank_zero_warn(f"W&B runs offline: {first_line(error)}")
            self._wandb_init["mode"] = "offline"
            wandb.teardown()  # its service still holds the run it could not begin
            return super().experiment


def _why_not_online() -> str | None:
    """What is missing to be online: an API key, or an answer of the server within seconds."""
    if not is_logged_in():
        return "no API key; `wandb login` stores one, or set WANDB_API_KEY"
    url = os.environ.get("WANDB_BASE_URL") or f"https://{WANDB_HOST}"
    answers = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=_SECONDS_TO_ANSWER).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except (OSError, ValueError):
            return
        answers.set()

    # In a thread, because looking up a name has no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS_TO_ANSWER)
    return None if answers.is_set() else f"{url} did not answer in {_SECONDS_TO_ANSWER:g} s"


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


def log_page(loggers: list[Any], run: RunFolder) -> None:
    """Send the page of a run to W&B."""
