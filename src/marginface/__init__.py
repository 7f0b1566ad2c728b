"""Train, compare, evaluate and ship face-recognition models with margin-softmax heads."""

from importlib.metadata import version

__version__ = version("marginface")
