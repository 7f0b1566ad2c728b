"""A training run: module, callbacks, checkpoints, loggers, and the function that runs it."""
