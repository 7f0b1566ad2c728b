"""Processes of one run watch each other: when one dies the others report it and end, too.

Without this they would wait in their next collective, for up to half an hour. torchrun and SLURM
(srun --kill-on-bad-exit) watch the processes they start; this is for those that Lightning starts.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies.launchers import subprocess_script

from marginface.utils.errors import ProcessLostError

_PERIOD = 1.0  # seconds between two looks
_LOST_PEER = ("closed by peer", "reset by peer", "broken pipe", "remote process exited")
_GRACE = 5.0  # for a process to end by itself, when all have met the same error


def watch_processes() -> None:
    """Have the first process watch those it starts, and those watch the first."""
    # Lightning's own kills the first process without saying why.
    subprocess_script._launch_process_observer = _watch_children  # type: ignore
    if is_started_by_another():
        _in_background(_watch_parent(os.getppid()))


@contextmanager
def lost_peers_named() -> Iterator[None]:
    """Turns the error of a collective whose other side is gone into one that names the cause.

    Waits first: the process that watches the others knows more and may end this one.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in _LOST_PEER):
            raise
        time.sleep(_PERIOD + _GRACE + 4)
        reason = str(error).splitlines()[0]
        raise ProcessLostError(f"lost another process of this run: {reason}") from None


def is_started_by_another() -> bool:
    """Whether the first process of this run started this one."""
    by_cluster = "TORCHELASTIC_RUN_ID" in os.environ or SLURMEnvironment.detect()
    return os.environ.get("LOCAL_RANK", "0") != "0" and not by_cluster


def _watch_children(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    def look() -> None:
        running = dict(enumerate(processes, start=1))
        while running:
            time.sleep(_PERIOD)
            for rank, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[rank]
                if code:
                    _end_all(rank, process, processes)

    _in_background(look)


def _end_all(
    rank: int, dead: "subprocess.Popen[bytes]", processes: Sequence["subprocess.Popen[bytes]"]
) -> None:
    time.sleep(_GRACE)
    rank += int(os.environ.get("NODE_RANK", "0")) * (len(processes) + 1)
    _report(f"process {rank} (rank {rank}, pid {dead.pid}) {_reason(dead.returncode)}")
    for process in processes:
        if process.poll() is None:
            process.kill()
    os._exit(max(dead.returncode, 1))


def _reason(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _watch_parent(parent: int) -> Callable[[], None]:
    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_PERIOD)
        time.sleep(_GRACE)  # it may have ended well, and so will this one
        _report(f"process 0 (rank 0, pid {parent}), which started the others, is gone")
        os._exit(1)

    return look


def _report(what: str) -> None:
    mine = os.environ.get("LOCAL_RANK", "0")
    print(
        f"error: {what}. Process {mine} ends, too; the same command resumes from the last "
        "checkpoint",
        file=sys.stderr,
        flush=True,
    )


def _in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True, name="watch").start()
