"""Exports and enrollments that are killed, or for which the disk is too small."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

import marginface
from helpers.small_models import random_faces, write_onnx

# The command, in a process whose files may not grow: writing fails as on a full disk.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import torch, marginface.inference.loading, marginface.inference.export_onnx  # with caches
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from marginface.cli.main import app
app()
"""
COMMAND = "from marginface.cli.main import app; app()"


def limited(limit: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_no_space_for_an_export(run: Path, tmp_path: Path) -> None:
    for target, more in (("a.onnx", []), ("shared", ["--license", "mit"])):
        done = limited(100_000, "export", str(run), f"{tmp_path}/{target}", *more)
        assert done.returncode == 2, done.stderr
        assert f"error: cannot write {tmp_path}/{target}: File too large" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_space_for_a_gallery_and_embeddings(tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx", side=112, width=64)
    for person, images in enumerate(random_faces(200, 2)):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for number, rgb in enumerate(images):
            cv2.imwrite(str(folder / f"{number}.jpg"), rgb[..., ::-1])
    common = ["--aligned"]
    for key in ("color=rgb", "mean=127.5", "std=127.5"):
        common += ["--describe", key]
    net, faces = str(tmp_path / "net.onnx"), str(tmp_path / "faces")
    done = limited(150_000, "enroll", net, f"{tmp_path}/a.gallery", faces, "--force", *common)
    assert "was not changed" in done.stderr
    assert "Traceback" not in done.stderr
    model = marginface.load(net, input={"color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3})
    with marginface.Gallery.open(tmp_path / "a.gallery", model) as gallery:
        assert gallery.file.damage() is None
        people = gallery.file.listing()
        assert 0 < len(people) < 200
        assert all(images == 2 for _, images, _ in people)
    done = limited(50_000, "embed", net, faces, f"{tmp_path}/e.npz", *common)
    assert done.returncode == 2, done.stderr
    assert "File too large; what is done is kept in" in done.stderr
    again = limited(1 << 30, "embed", net, faces, f"{tmp_path}/e.npz", "--resume", *common)
    assert again.returncode == 0, again.stderr
    assert "400 faces of 400 photographs" in again.stdout


def killed_after(seconds: float, *arguments: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)


@pytest.mark.parametrize(
    "every", [pytest.param(5, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.long)]
)
def test_killed_while_exporting(every: int, run: Path, tmp_path: Path) -> None:
    """At any moment: the file is not there, or it is whole; the next export cleans up and works."""
    expected = marginface.load(run).digest
    for number in range(0, 20, every):
        file, folder = tmp_path / "a.onnx", tmp_path / "shared"
        if number % 2:
            killed_after(2.0 + 0.15 * number, "export", str(run), str(file))
        else:
            killed_after(2.0 + 0.2 * number, "export", str(run), str(folder), "--license", "mit")
        for written in (file, folder):
            if written.exists():
                assert marginface.load(written).digest == expected
                shutil.rmtree(written) if written.is_dir() else written.unlink()
    killed_after(120, "export", str(run), str(tmp_path / "a.onnx"))
    killed_after(120, "export", str(run), str(tmp_path / "shared"), "--license", "mit")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "shared"]
    assert marginface.load(tmp_path / "shared").digest == expected
