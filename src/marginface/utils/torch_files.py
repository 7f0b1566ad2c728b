"""Files of torch.save; nothing in them is run."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from marginface.utils.errors import InputError

_SAVE = "torch.save(model.state_dict(), 'weights.pth')"
_ESCAPE_CODES = re.compile(r"\x1b\[[0-9;]*m")
_MAGIC_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # pickled, of torch before 1.6
_PICKLED = ("nsupported global", "nsupported operand", "nsupported class")


def load_tensors(path: Path, what: str = "weights file") -> Any:
    """What a file of torch.save holds: tensors and plain Python.

    Args:
        what: the file should be, for messages.

    Raises:
        InputError: pickled objects, a TorchScript archive, or a file that cannot be read.
    """
    _check_start(path, what)
    names = _names_in(path)  # files of torch before 1.6 are no zip archives and cannot be mapped
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{path} is a TorchScript archive, not a {what}. Where it can be run, save its "
            f"weights: model = torch.jit.load('{path.name}'); {_SAVE}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=len(names) > 0)
    except Exception as error:  # torch has many ways to refuse a file
        # Its messages recommend what would run the code in the file.
        text = _ESCAPE_CODES.sub("", str(error)).strip()
        if any(sign in text for sign in _PICKLED):
            kind = re.search(r"GLOBAL\s+([\w.]+\w)", text)
            named = f" ({kind[1]})" if kind else ""
            raise InputError(
                f"{path} holds pickled objects{named}, as a whole module is, and reading them "
                f"would run code of the file. Where it was made, save its weights alone: {_SAVE}"
            ) from error
        reason = text.splitlines()[0] if text else f"it ends too early ({type(error).__name__})"
        raise InputError(f"{path} is not a readable {what}: {reason}") from error


# How files begin that are something else, and what to do about them.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<!doctype html": "an HTML page: download the file itself",
    b"<html": "an HTML page: download the file itself",
    b"{": "JSON text",
    b"sqlite format 3": "a gallery or another SQLite file",
}


def _check_start(path: Path, what: str) -> None:
    """InputError for files that are easily told to be something else."""
    with path.open("rb") as file:
        start = file.read(512)  # an archive of torch before 0.4 says so at byte 257
    if not start:
        raise InputError(f"{path} is empty (0 bytes), not a {what}; copy it again")
    for sign, is_this in _OTHERS.items():
        if start.lstrip().lower().startswith(sign):
            raise InputError(f"{path} is {is_this} (a {what} was expected)")
    if start[:1] == b"\x80" and _MAGIC_NUMBER not in start:
        raise InputError(
            f"{path} is a pickle that torch.save did not write, and reading it may run code. Where "
            f"it was made, save the weights: {_SAVE}"
        )
    if start[:1] != b"\x80" and start[:2] != b"PK" and b"ustar" not in start:
        raise InputError(
            f"{path} is not a readable {what}: torch.save did not write it (it begins with "
            f"{start[:8]!r})"
        )
    if start[:2] == b"PK" and not zipfile.is_zipfile(path):
        raise InputError(f"{path} is incomplete: the end of the file is missing; copy it again")


def _names_in(path: Path) -> list[str]:
    """Of a zip archive; none of another file."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
