"""A training run: module, callbacks, checkpoints, loggers, and the function that runs it."""

from marginface.training.run import train

__all__ = ["train"]
