"""Train, compare, evaluate and export face-recognition networks with margin-softmax heads."""

import os
from importlib.metadata import PackageNotFoundError, version

# A header of a few bytes must not claim all memory. OpenCV reads this once, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

try:
    __version__ = version("marginface")
except PackageNotFoundError:  # a source tree that is only on the import path
    __version__ = "0+source"
