"""Class centers in files: ours, and those of other projects' heads."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from marginface.backbones.weights import read_states
from marginface.runs.checkpoint_file import has_centers, read_centers, read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.torch_files import load_tensors

# Names of the centers in files of other projects, and whether they are stored as (D, C).
_NAMES = {
    "head.weight": False,  # ours, exported
    "head.kernel": True,  # AdaFace
    "parallel_fc.weight": False,  # MagFace, several processes
    "module.fc.weight": True,  # MagFace, several devices
    "partial_fc.weight": False,  # CVLface
    "kernel": True,  # CurricularFace
    "weight": False,  # insightface's partial FC, face.evoLVe's ArcFace
}
# One file for each rank: the number is the last one in the name.
_OF_A_RANK = re.compile(r"^(checkpoint_gpu_|softmax_fc_gpu_|rank_|classifier_rank)(\d+)(\D*)$")
_MOST_PADDING = 10  # rows that CVLface adds at the end


def read_center_file(path: str | Path, embedding_size: int) -> Tensor:
    """(C, K, D) class centers of a file, a run folder, or the files of all ranks beside a file.

    Args:
        path: a run folder or .ckpt of ours (its last checkpoint), what `marginface export-head`
            wrote, a checkpoint of AdaFace or MagFace, a head of CurricularFace or face.evoLVe, or
            any one of insightface's or CVLface's files of centers by rank.
        embedding_size: D.

    Raises:
        MissingInputError: no such file, or one of a rank.
        InputError: a file without centers, or with those of other embeddings.
    """
    path = Path(path)
    file = RunFolder(path).last if path.is_dir() else path
    if not file.is_file():
        raise MissingInputError(f"head.weights={path}: no such file")
    if file.suffix == ".ckpt":
        checkpoint = read_checkpoint(file)
        if has_centers(checkpoint):
            centers = read_centers(checkpoint, file)
            classes = checkpoint["marginface"].get("head", {}).get("classes", len(centers))
            return _checked(centers, file, embedding_size, len(centers) // classes)
    ranks = _files_of_all_ranks(file)
    parts = [_centers_in(part, embedding_size) for part in ranks]
    centers = torch.cat(parts)
    if len(parts) > 1:
        _check_division([len(part) for part in parts], ranks)
    return _checked(centers, file, embedding_size, _centers_per_class(file))


def _centers_per_class(file: Path) -> int:
    """K, which our exports state; heads of other projects have one center a class."""
    if file.suffix != ".safetensors":
        return 1
    with safe_open(file, "pt") as content:
        return int((content.metadata() or {}).get("centers_per_class", 1))


def _files_of_all_ranks(file: Path) -> list[Path]:
    """Those beside a file of one rank, in the order of the ranks; else the file alone."""
    name = _OF_A_RANK.match(file.name)
    if name is None:
        return [file]
    found = {}
    for other in file.parent.iterdir():
        match = _OF_A_RANK.match(other.name)
        if match and (match[1], match[3]) == (name[1], name[3]):
            found[int(match[2])] = other
    missing = sorted(set(range(max(found) + 1)) - found.keys())
    if missing:
        raise MissingInputError(
            f"head.weights={file}: the files of the ranks {', '.join(map(str, missing))} are not "
            f"beside it; the centers of {max(found) + 1} ranks belong together"
        )
    return [found[rank] for rank in sorted(found)]


def _check_division(rows: list[int], files: list[Path]) -> None:
    """Ranks hold about equally many rows; one of another training would show here."""
    if max(rows) - min(rows) > _MOST_PADDING:
        raise InputError(
            f"{files[0].parent}: the ranks hold {', '.join(map(str, rows))} centers; files of "
            "different trainings are mixed"
        )


def _centers_in(file: Path, embedding_size: int) -> Tensor:
    bare = _bare_tensor(file)
    if bare is not None:
        return bare
    found = [
        (tensor, is_turned)
        for state in _most_likely(read_states(file))
        for name, is_turned in _NAMES.items()
        if (tensor := state.get(name)) is not None and tensor.ndim == 2
    ]
    if not found:
        raise InputError(
            f"head.weights={file} holds no class centers; known names are {', '.join(_NAMES)}"
        )
    tensor, is_turned = found[0]
    if is_turned and tensor.shape[0] == embedding_size:
        return tensor.T.contiguous()
    return tensor


def _most_likely(states: dict[str, dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """State dicts of a head before others."""
    yield from (state for name, state in states.items() if "softmax" in name.lower())
    yield from states.values()


def _bare_tensor(file: Path) -> Tensor | None:
    """insightface's files until 2022 are a tensor alone."""
    if not file.name.startswith("rank_"):
        return None
    content = load_tensors(file)
    return content if isinstance(content, Tensor) else None


def _checked(centers: Tensor, file: Path, embedding_size: int, per_class: int) -> Tensor:
    if centers.ndim != 2 or centers.shape[1] != embedding_size:
        raise InputError(
            f"head.weights={file} holds centers of shape {tuple(centers.shape)}; those of "
            f"embeddings of {embedding_size} numbers are (classes, {embedding_size}); set "
            "backbone.embedding_size"
        )
    return centers.float().unflatten(0, (-1, per_class))
