"""Files of torch.save; nothing in them is run."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from marginface.utils.errors import InputError

_SAVE = "torch.save(model.state_dict(), 'weights.pth')"
_ESCAPE_CODES = re.compile(r"\x1b\[[0-9;]*m")
_PICKLED = ("nsupported global", "nsupported operand", "nsupported class")


def load_tensors(path: Path, what: str = "weights file") -> Any:
    """What a file of torch.save holds: tensors and plain Python.

    Args:
        what: the file should be, for messages.

    Raises:
        InputError: pickled objects, a TorchScript archive, or a file that cannot be read.
    """
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
        reason = text.splitlines()[0] if text else type(error).__name__
        raise InputError(f"{path} is not a readable {what}: {reason}") from error


def _names_in(path: Path) -> list[str]:
    """Of a zip archive; none of another file."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
