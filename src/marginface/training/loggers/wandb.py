"""The W&B logger: offline unless the user is logged in or sets WANDB_MODE, and without a server."""

import netrc
import os
import re
import secrets
import threading
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from marginface.pages.run_charts import last_validation_charts
from marginface.pages.run_data import read_run
from marginface.reporting.svg_charts import svg_file
from marginface.runs.comparison import settings_without_seed
from marginface.runs.folder import RunFolder
from marginface.utils.console import is_first_process, rank_zero_print, rank_zero_warn
from marginface.utils.errors import first_line
from marginface.utils.hashes import short_hash
from marginface.utils.nested import flatten

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
    log_model: bool = False,
) -> WandbLogger:
    """A WandbLogger that continues its run when the same folder is used again.

    Args:
        save_dir: the run folder; holds the files of an offline run and the run's id.
        name, project, job_type, tags, entity: as W&B knows them.
        group: of runs; null for all seeds of the same settings.
        log_model: whether the best checkpoint is logged as an artifact at the end.
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
        log_best=log_model,
        settings={"console": "off", "silent": True, "init_timeout": _SECONDS_TO_BEGIN},
    )


class PatientWandbLogger(WandbLogger):
    """Goes on offline when the server refuses a run, and without W&B when even that fails.

    Settings are flat (`head.margin`), beside them `without_seed` names what all seeds of the same
    settings have in common: group by it. The best of every metric is in the summary.

    Args:
        log_best: whether the best checkpoint becomes an artifact at the end.
        settings: of Lightning's logger.
    """

    def __init__(self, *, log_best: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.log_best = log_best
        self._declared: set[str] = set()
        self._refused: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun on first use."""
        import wandb  # not by runs that log elsewhere: it takes a second

        while True:
            try:
                return super().experiment
            # ValueError: a key of another length.
            except (wandb.errors.Error, OSError, ValueError) as error:
                mode = self._wandb_init["mode"]
                if mode == "disabled":
                    raise
                self._wandb_init["mode"] = "offline" if mode == "online" else "disabled"
                state = "offline" if mode == "online" else "not at all"
                rank_zero_warn(f"W&B runs {state}: {first_line(error)}")
                wandb.teardown()  # its service still holds the run it could not begin

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        settings = vars(params) if isinstance(params, Namespace) else params
        label = without_seed(settings)
        if self._wandb_init.get("group") is None:
            self._wandb_init["group"] = label
        with self._never_stopping("settings"):
            super().log_hyperparams(flatten(settings) | {"without_seed": label})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self._never_stopping("metrics"):
            for name in metrics.keys() - self._declared:
                self._declared.add(name)
                summary = _summary(name)
                if summary is not None:
                    self.experiment.define_metric(
                        name, step_metric="trainer/global_step", summary=summary
                    )
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_run(self, run: RunFolder) -> None:
        """Send the page, its charts and, where asked for, the best checkpoint."""
        import wandb

        with self._never_stopping("the page"):
            page = wandb.Html(run.report.read_text(), inject=False)
            charts = last_validation_charts(read_run(run.path))
            # Each of them on a page of its own, in its colors.
            figures = {f"figures/{c.title}": wandb.Html(svg_file([c], 1)) for c in charts}
            self.experiment.log({"report": page, **figures})
        if not self.log_best:
            return
        with self._never_stopping("the checkpoint"):
            best = run.checkpoint("best")
            artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model")
            artifact.add_file(str(best))
            for centers in best.parent.glob(f"{best.name}.head-*"):  # too many for one file
                artifact.add_dir(str(centers), name=centers.name)
            self.experiment.log_artifact(artifact, aliases=[best.stem])

    @contextmanager
    def _never_stopping(self, what: str) -> Iterator[None]:
        """W&B is told about a run; whatever goes wrong there must not end the run."""
        try:
            yield
        except Exception as error:
            if what not in self._refused:  # once, not at every step
                rank_zero_warn(
                    f"W&B did not take {what}: {first_line(error) or type(error).__name__}"
                )
            self._refused.add(what)


def without_seed(settings: dict[str, Any]) -> str:
    """A name that runs have in common when they differ in nothing but the seed."""
    kept = settings_without_seed({k: v for k, v in settings.items() if k != "runinfo"})
    name = re.sub(r"-?seed\d+$", "", str(settings.get("name", "run")))
    return f"{name}-{short_hash(repr(sorted(kept.items())), 8)}"


def _summary(name: str) -> str | None:
    """What W&B's summary keeps of a metric: the best; for others the last, as by itself."""
    last = name.rsplit("/", 1)[-1]
    if not name.startswith("val/"):
        return None
    if last in ("accuracy", "auc") or last.startswith("tar@"):
        return "max,last"
    return "min,last" if last == "eer" else None


def _why_not_online() -> str | None:
    """What is missing to be online: an API key, or an answer of the server within seconds."""
    url = os.environ.get("WANDB_BASE_URL") or f"https://{WANDB_HOST}"
    if not is_logged_in():
        return f"no API key for {url}; `wandb login` stores one, or set WANDB_API_KEY"
    answer = [f"did not answer in {_SECONDS_TO_ANSWER:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=_SECONDS_TO_ANSWER).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except TimeoutError:
            return
        except (OSError, ValueError) as error:
            answer[0] = f"cannot be reached ({first_line(error)})"
            return
        answer[0] = ""

    # In a thread, because looking up a name has no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS_TO_ANSWER)
    return f"{url} {answer[0]}" if answer[0] else None


def is_logged_in() -> bool:
    """Whether a key is there: WANDB_API_KEY or what `wandb login` stores for the server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or WANDB_HOST
    try:
        return netrc.netrc(path).authenticators(host) is not None
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
    """Send the page of a run to the loggers that take it."""
    for logger in loggers:
        if isinstance(logger, PatientWandbLogger):
            logger.log_run(run)
