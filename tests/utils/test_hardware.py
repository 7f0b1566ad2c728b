"""What a device is told."""

import subprocess
import sys

import pytest

# Pages fetched from the system by the last of twenty allocations of 64 MiB, each freed at once.
_PAGES = """
import resource, sys
import torch
from marginface.utils.hardware import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = torch.ones(1 << 26, dtype=torch.uint8)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_stays() -> None:
    def pages(how: str) -> int:
        command = [sys.executable, "-c", _PAGES, how]  # a process each: it cannot be undone
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert pages("keep") < 100
    assert pages("leave") > 10_000  # of 16,384; else the setting would be for nothing
