"""Which process on which machine: to see later whether it is still there."""

import os
import socket
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, process id and when that process started, as plain values."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_alive(process: dict[str, Any]) -> bool | None:
    """Whether a process is there that `this_process` described; None on another machine."""
    if process.get("host") != socket.gethostname():
        return None
    pid = process["pid"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    # Numbers of processes are used again.
    return _started(pid) == process["started"]


def _started(pid: int) -> int | None:
    """Clock ticks between the start of the system and that of the process; None without /proc."""
    try:
        # The name in parentheses may hold blanks; field 22 of proc(5) is the 20th after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
