"""Class centers of other projects' files: any number of ranks, either orientation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from marginface.training.center_files import read_center_file
from marginface.utils.errors import InputError, MissingInputError

C, D = 23, 8


@pytest.fixture
def centers() -> torch.Tensor:
    return torch.randn(C, D, generator=torch.Generator().manual_seed(0))


def of_rank(centers: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """insightface's rule: rank r of W holds C//W + (r < C%W) rows."""
    start = C // world * rank + min(rank, C % world)
    return centers[start : start + C // world + (rank < C % world)].clone()


@pytest.mark.parametrize("world", [1, 2, 11])
@pytest.mark.parametrize("kind", ["checkpoint_gpu_{}.pt", "softmax_fc_gpu_{}.pt",
                                  "rank_{}_softmax_weight.pt"])  # fmt: skip
def test_partial_fc_of_any_number_of_ranks(
    centers: torch.Tensor, tmp_path: Path, kind: str, world: int
) -> None:
    for rank in range(world):
        part: Any = of_rank(centers, rank, world)
        if kind.startswith("softmax"):
            part = {"weight": part}
        elif kind.startswith("checkpoint"):
            backbone = {"conv1.weight": torch.zeros(2, 3)}
            part = {"epoch": 1, "state_dict_backbone": backbone,
                    "state_dict_softmax_fc": {"weight": part}}  # fmt: skip
        torch.save(part, tmp_path / kind.format(rank))
        torch.save(torch.zeros(3, 3), tmp_path / f"rank_{rank}_softmax_weight_mom.pt")
    assert torch.equal(read_center_file(tmp_path / kind.format(0), D)[:, 0], centers)
    assert torch.equal(read_center_file(tmp_path / kind.format(world - 1), D)[:, 0], centers)


def test_a_rank_that_is_missing(centers: torch.Tensor, tmp_path: Path) -> None:
    for rank in (0, 2):
        torch.save({"weight": of_rank(centers, rank, 3)}, tmp_path / f"softmax_fc_gpu_{rank}.pt")
    with pytest.raises(MissingInputError, match="the files of the ranks 1 are not beside it"):
        read_center_file(tmp_path / "softmax_fc_gpu_0.pt", D)
    torch.save({"weight": torch.zeros(40, D)}, tmp_path / "softmax_fc_gpu_1.pt")
    with pytest.raises(InputError, match="files of different trainings are mixed"):
        read_center_file(tmp_path / "softmax_fc_gpu_0.pt", D)


@pytest.mark.parametrize(
    ("name", "turned", "nested"),
    [
        ("head.kernel", True, ["state_dict"]), ("parallel_fc.weight", False, ["state_dict"]),
        ("module.fc.weight", True, ["state_dict"]), ("kernel", True, ["HEAD"]),
        ("weight", False, []),
    ],
)  # fmt: skip
def test_heads_of_other_projects(
    centers: torch.Tensor, tmp_path: Path, name: str, turned: bool, nested: list[str]
) -> None:
    content: Any = {name: centers.T.contiguous() if turned else centers, "head.t": torch.zeros(1)}
    for key in nested:
        content = {key: content, "EPOCH": 3}
    torch.save(content, tmp_path / "head.pth")
    assert torch.equal(read_center_file(tmp_path / "head.pth", D)[:, 0], centers)


def test_what_we_export(centers: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "centers.safetensors"
    save_file({"head.weight": centers}, file)
    assert torch.equal(read_center_file(file, D)[:, 0], centers)
    save_file({"head.weight": centers[:20].clone()}, file, {"centers_per_class": "4"})
    assert torch.equal(read_center_file(file, D), centers[:20].view(5, 4, D))


def test_what_does_not_fit(centers: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        read_center_file(tmp_path / "none.pt", D)
    torch.save({"fc": centers}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds no class centers; known names are head.weight"):
        read_center_file(tmp_path / "other.pth", D)
    torch.save({"weight": centers}, tmp_path / "narrow.pth")
    with pytest.raises(InputError, match=r"centers of shape \(23, 8\)"):
        read_center_file(tmp_path / "narrow.pth", 512)
