"""What docs/deployment.md shows runs as printed, one after the other, on real photographs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

PAGE = (ROOT / "docs" / "deployment.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.strip().splitlines()
    if not line.startswith("pip ")
    and not re.search("runs-with-network|needs-photographs|stays open", line)
]
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
_PEOPLE, _IMAGES = 24, 4


def photographs(faces: Path, folder: Path) -> None:
    """people/p000/0.jpg ..., and one more of each in photos/; crops that are not aligned."""
    meta = faces / "ijb_style" / "meta"
    subject_of = {}
    for side in "12":
        rows = (meta / f"dev_1N_gallery_G{side}.csv").read_text().split()[1:]
        subject_of |= {row.split(",")[0]: row.split(",")[1] for row in rows}
    images: dict[str, list[str]] = {}
    for line in (meta / "dev_face_tid_mid.txt").read_text().splitlines():
        name, template, _ = line.split()
        if template in subject_of:
            images.setdefault(subject_of[template], []).append(name)
    people = [names for names in images.values() if len(names) >= 2][:_PEOPLE]
    (folder / "photos").mkdir()
    for number, names in enumerate(people):
        person = folder / "people" / f"p{number:03d}"
        person.mkdir(parents=True)
        for place, name in enumerate(names[:_IMAGES]):
            shutil.copy(faces / "ijb_style" / "loose_crop" / name, person / f"{place}.jpg")
        shutil.copy(
            faces / "ijb_style" / "loose_crop" / names[-1], folder / "photos" / f"{number}.jpg"
        )


@pytest.mark.slow
@pytest.mark.first
def test_the_page_runs(faces: Path, tmp_path: Path) -> None:
    if not os.environ.get("MARGINFACE_YUNET"):
        pytest.skip("MARGINFACE_YUNET is not set")
    photographs(faces, tmp_path)
    (tmp_path / "train.py").write_text((ROOT / "train.py").read_text())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "2",
    }

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280,
            check=False,
        )  # fmt: skip

    trained = run(
        [
            sys.executable,
            "train.py",
            "debug=fast",
            "hydra.run.dir=logs/runs/mine",
            "logger=csv",
            "data=folder",
            f"data.root={faces / 'train'}",
            "data.val_identities=40",
            "data.num_workers=2",
            "trainer.limit_val_batches=1.0",
        ]
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        done = run(shlex.split(command))
        # A network of a few steps does not find anybody reliably.
        expected = (0, 1) if command.split()[1] in ("verify", "identify") else (0,)
        assert done.returncode in expected, command + done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
    assert len(PROGRAMS) == 3
    for program in PROGRAMS:
        done = run([sys.executable, "-c", program])
        assert done.returncode == 0, program + done.stdout + done.stderr
