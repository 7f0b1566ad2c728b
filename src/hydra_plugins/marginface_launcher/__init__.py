"""A Hydra launcher that gives every job of a sweep a process of its own.

In one process, jobs share the process group, the W&B run and the caches of the job before them: a
second job with other trainer.devices would silently train alone. Fresh processes share nothing.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

# What tells a process that it is one of several; a job starts its own.
_OF_THE_PARENT = (
    "LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "TORCHELASTIC_RUN_ID",
)  # fmt: skip


class MarginfaceLauncher(Launcher):
    """Runs the jobs one after the other, each as `python <script> <overrides>`.

    Attributes:
        shows_comparison: whether tables are printed when jobs are done; a sweeper that launches
            them one by one shows them itself.
        was_stopped: whether the sweep was asked to stop.
    """

    shows_comparison = True
    was_stopped = False

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs, also after one failed, then compare those that have a result."""
        # Imported here: Hydra loads its plugins at every start, also for `--help`.
        from marginface.pages.sweep_page import finish_sweep

        sweep_dir = Path(str(self.config.hydra.sweep.dir))
        returns = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            shown = " ".join(filter_overrides(overrides))
            print(f"[job {number}] {shown.split(' ++callbacks.pruning')[0]}", flush=True)
            folder = sweep_dir / self._subdir(overrides, number)
            returns.append(self._run(list(overrides), folder))
        # All jobs so far: an optimizing sweeper launches them a few at a time.
        finish_sweep(sweep_dir, shown=self.shows_comparison)
        failed = [
            i for i, r in enumerate(returns, initial_job_idx) if r.status != JobStatus.COMPLETED
        ]
        if failed:
            print(f"error: jobs {failed} failed; their output is above", file=sys.stderr)
            raise SystemExit(1)
        return returns

    def _subdir(self, overrides: Sequence[str], number: int) -> str:
        """hydra.sweep.subdir of this job."""
        job = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(job):
            job.hydra.job.id = f"job_{number}"
            job.hydra.job.num = number
        HydraConfig.instance().set_config(job)
        return str(job.hydra.sweep.subdir)

    def _run(self, overrides: list[str], folder: Path) -> JobReturn:
        environment = {k: v for k, v in os.environ.items() if k not in _OF_THE_PARENT}
        command = [
            sys.executable,
            sys.argv[0],
            *_config_options(),
            *overrides,
            f'hydra.run.dir="{folder}"',
            "hydra.mode=RUN",
            f'paths.sweep_name="{folder.parent.name}"',
        ]
        job = subprocess.Popen(command, env=environment)
        try:
            with _signals_sent_on_to(job) as sent_on:
                code = job.wait()
        except KeyboardInterrupt:  # the terminal sent it to the job, too
            job.wait()
            self.was_stopped = True
            print(
                f"interrupted; the same command with hydra.sweep.dir={folder.parent} resumes",
                file=sys.stderr,
            )
            raise SystemExit(130) from None
        if sent_on:  # asked to stop: the same command resumes in the same sweep.dir
            self.was_stopped = True
            raise SystemExit(code or 128 + sent_on[0])
        result = JobReturn()
        result.overrides = overrides
        result.working_dir = str(folder)
        if code == 0:
            result.status = JobStatus.COMPLETED
            result.return_value = self._objective(folder)
        else:
            result.status = JobStatus.FAILED
            result.return_value = RuntimeError(f"exit code {code} in {folder}")
        return result

    @staticmethod
    def _objective(folder: Path) -> Any:
        """What a sweeper maximizes: the mean verification accuracy, None without any."""
        return json.loads((folder / "result.json").read_text()).get("val/mean/accuracy")


@contextmanager
def _signals_sent_on_to(job: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """What a cluster sends to the sweep is for the job under way."""
    received: list[int] = []

    def send_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        job.send_signal(number)

    before = {n: signal.signal(n, send_on) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _config_options() -> list[str]:
    """Options of this command line that decide where configurations come from."""
    options, _ = get_args_parser().parse_known_args(sys.argv[1:])
    return ["--config-dir", options.config_dir] if options.config_dir else []


@dataclass
class MarginfaceLauncherConf:
    """Configuration node hydra/launcher=marginface."""

    _target_: str = "hydra_plugins.marginface_launcher.MarginfaceLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="marginface", node=MarginfaceLauncherConf, provider="marginface"
)
