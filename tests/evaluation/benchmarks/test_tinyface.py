"""TinyFace from its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from helpers.benchmark_sets import (
    SUBJECTS,
    embeddings_of,
    write_tinyface,
)
from marginface.evaluation.benchmarks import (
    TinyFaceBenchmark,
)
from marginface.utils.errors import InputError, MissingInputError


def test_tinyface(tmp_path: Path) -> None:
    write_tinyface(tmp_path)
    (task,) = TinyFaceBenchmark(root=str(tmp_path), bootstrap=20).tasks("tinyface", 32)
    assert len(task.faces) == 2 * SUBJECTS + 2 * SUBJECTS + 6
    embeddings = embeddings_of(task.faces)  # type: ignore[arg-type]
    outcome = task.evaluate(embeddings)
    unit = torch.nn.functional.normalize(embeddings)
    scores = unit[: 2 * SUBJECTS] @ unit[2 * SUBJECTS :].T
    subjects = torch.arange(SUBJECTS).repeat_interleave(2)
    found = torch.cat([subjects, torch.full((6,), -1)])[scores.argmax(1)]
    assert outcome.metrics["rank1"].value == (found == subjects).double().mean()
    assert list(outcome.metrics) == ["rank1", "rank5", "rank20"]
    assert outcome.counts["distractors"] == 6


def test_faults_of_tinyface(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not hold Probe, Gallery_Match"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    write_tinyface(tmp_path)
    mat = tmp_path / "Testing_Set" / "probe_img_ID_pairs.mat"
    good = mat.read_bytes()
    names = np.empty((1, 1), object)
    names[0, 0] = "3_0.jpg"
    savemat(mat, {"probe_set": names, "probe_ids": np.array([[4]])})
    with pytest.raises(InputError, match="disagree on the subjects"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    mat.write_bytes(b"no MATLAB")
    with pytest.raises(InputError, match="expected a MATLAB 5 file with probe_set"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    mat.write_bytes(good)
    (tmp_path / "Testing_Set" / "Probe" / "1_0.jpg").unlink()
    with pytest.raises(MissingInputError, match="1_0.jpg: no such image, but the protocol has it"):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    (tmp_path / "aligned" / "Gallery_Distractor").mkdir(parents=True)
    with pytest.raises(
        InputError, match="several sets of images; choose one.*Testing_Set, aligned"
    ):
        TinyFaceBenchmark(root=str(tmp_path)).tasks("tinyface", 32)
    mat.unlink()
    with pytest.raises(MissingInputError, match="no probe_img_ID_pairs.mat"):
        TinyFaceBenchmark(root=str(tmp_path), images="Testing_Set").tasks("tinyface", 32)
