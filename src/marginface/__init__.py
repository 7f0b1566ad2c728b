"""Train, compare, evaluate and export face-recognition networks with margin-softmax heads."""

import importlib
import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marginface.inference.gallery import Gallery
    from marginface.inference.loading import load

__all__ = ["Gallery", "load"]

# A header of a few bytes must not claim all memory. OpenCV reads this once, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

try:
    __version__ = version("marginface")
except PackageNotFoundError:  # a source tree that is only on the import path
    __version__ = "0+source"

# Imported when they are asked for: `import marginface` waits for neither torch nor Lightning.
_LATER = {"load": "marginface.inference.loading", "Gallery": "marginface.inference.gallery"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
