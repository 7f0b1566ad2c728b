"""Numbers that mislead come with a warning."""

import numpy as np
import pytest

from marginface.evaluation.benchmarks.gallery import Listed, _warn_of_same_files
from marginface.evaluation.benchmarks.pairs import _warn_of_one_kind


@pytest.mark.parametrize(
    ("same", "folds", "warned"),
    [
        ([True] * 20 + [False] * 20, 10, 10),  # sorted by kind
        ([True, False] * 20, 10, 0),
        ([True] * 6 + [True, False] * 17, 10, 1),
        ([True, False] * 5, 10, 0),  # one pair a fold has no other kind
    ],
)
def test_folds_of_one_kind(
    same: list[bool], folds: int, warned: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _warn_of_one_kind("mine", np.array(same), folds)
    printed = capsys.readouterr().err
    if warned:
        assert printed.startswith(f"warning: mine: {warned} of {folds} folds hold pairs of one")
    else:
        assert printed == ""


def test_probes_that_are_gallery_images(capsys: pytest.CaptureFixture[str]) -> None:
    gallery = Listed(["a/1.jpg", "b/1.jpg"], ["a", "b"], ["0", "1"])
    _warn_of_same_files("mine", gallery, Listed(["a/2.jpg"], ["a"], ["0"]))
    assert capsys.readouterr().err == ""
    _warn_of_same_files("mine", gallery, Listed(["./a/1.jpg", "b/2.jpg"], ["a", "b"], ["0", "1"]))
    printed = capsys.readouterr().err
    assert printed.startswith("warning: mine: 1 of 2 probes are the very files of the gallery")
