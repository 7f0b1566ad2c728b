"""Names of version 0.1 that have changed since: keys of the configuration and classes.

A command that uses one is an error that gives the new name; what runs of 0.1 left on disk is read
through the same tables.
"""

from typing import Any

_KEYS = {
    "learning_rate_per": "lr_base_size",
    "decay_vectors": "decay_bias_and_norm",
    "asynchronous_checkpoints": "async_checkpoints",
    "augmentation.grey": "augmentation.grayscale",
    "data.dataset.grey": "data.dataset.grayscale",
    "classifier.filter_above": "classifier.interclass_filtering_threshold",
    "classifier.gemm": "classifier.matmul_precision",
    "classifier.collectives": "classifier.communication_precision",
    "classifier.memory_mib": "classifier.chunk_mib",
    "classifier.apart_above_mib": "classifier.separate_file_above_mib",
}
_CALLBACKS = "marginface.training.callbacks"
_TARGETS = {
    "marginface.callbacks.StepLog": f"{_CALLBACKS}.step_log.StepLog",
    "marginface.callbacks.LastCheckpoint": f"{_CALLBACKS}.checkpoints.LastCheckpoint",
    "marginface.callbacks.BestCheckpoint": f"{_CALLBACKS}.checkpoints.BestCheckpoint",
    "marginface.preemption.Preemption": f"{_CALLBACKS}.preemption.Preemption",
}
_MODULES = {
    "marginface.optimizers": "marginface.training.optimizers",
    "marginface.schedules": "marginface.training.schedulers",
    "marginface.strategies": "marginface.training.strategies",
    "marginface.tracking": "marginface.training.loggers",
    "marginface.protocols": "marginface.evaluation.benchmarks",
    "marginface.data.folder": "marginface.data",
    "marginface.data.joined": "marginface.data",
    "marginface.data.list_file": "marginface.data",
    "marginface.data.lmdb_file": "marginface.data",
    "marginface.data.recordio": "marginface.data",
    "marginface.data.synthetic": "marginface.data",
}


# In the files of evaluations.
_COLUMNS = {"right": "correct"}
_SPELLINGS = {"normalised": "normalized", "neighbouring": "neighboring"}


def new_column(name: str) -> str:
    """What a column of scores.npz is called now."""
    return _COLUMNS.get(name, name)


def new_spelling(line: str) -> str:
    """A protocol line as it is written now."""
    for old, new in _SPELLINGS.items():
        line = line.replace(old, new)
    return line


def new_key(key: str) -> str | None:
    """What a dotted key of version 0.1 is called now; None for a key that kept its name."""
    return _KEYS.get(key)


def new_target(path: str) -> str | None:
    """The same for the `_target_` of a node."""
    module, _, name = path.rpartition(".")
    if module in _MODULES:
        return f"{_MODULES[module]}.{name}"
    return _TARGETS.get(path)


def with_new_names(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration with today's keys and targets."""
    renamed = {}
    for key, value in config.items():
        name = _KEYS.get(prefix + key, prefix + key).removeprefix(prefix)
        if isinstance(value, dict):
            value = with_new_names(value, f"{prefix}{key}.")
        elif key == "_target_":
            value = new_target(value) or value
        renamed[name] = value
    return renamed
