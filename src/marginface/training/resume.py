"""Which checkpoint a run resumes from, and whether it may."""

from pathlib import Path
from typing import Any

from marginface.runs.checkpoint_file import CHECKPOINT_FORMAT, read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.nested import flatten


def checkpoint_to_resume(
    resume: str, folder: RunFolder, description: dict[str, Any]
) -> Path | None:
    """The checkpoint that a run resumes from, None for a new start.

    Args:
        resume: "auto" resumes when `folder` holds a checkpoint, "never" refuses to, anything else
            is the path of a checkpoint or of a run folder.
        folder: of this run.
        description: config and data of this run; the checkpoint's must be the same.

    Raises:
        MissingInputError: no such checkpoint.
        InputError: it belongs to another run, or "never" would overwrite one.
    """
    if resume == "never":
        if folder.last.is_file():
            raise InputError(
                f"{folder.last} exists and resume=never would overwrite it; "
                "choose another hydra.run.dir, or resume=auto to continue it"
            )
        return None
    if resume == "auto":
        if not folder.last.is_file():
            return None
        path = folder.last
    else:
        path = Path(resume)
        path = RunFolder(path).last if path.is_dir() else path
        if not path.is_file():
            raise MissingInputError(f"no checkpoint {path}; resume takes auto, never or a path")
    before = _state_of_run(path)["description"]
    check_same_run(path, before, description)
    for line in changed_execution(before, description):
        rank_zero_print(line)
    return path


def position(path: Path) -> tuple[int, int]:
    """Epoch, and optimizer step in it, with which the run of a checkpoint continues."""
    state = _state_of_run(path)
    # The epoch's length is that of the run, not of the data: the trainer may limit its batches.
    return divmod(state["step"], state["steps_per_epoch"])


def _state_of_run(path: Path) -> dict[str, Any]:
    """What a checkpoint of ours knows of its run beyond Lightning's content."""
    state: dict[str, Any] = read_checkpoint(path).get("marginface", {})
    if not state:
        raise InputError(
            f"{path} was not written by marginface and cannot be resumed; "
            "backbone.weights=<file> starts from its weights"
        )
    if state.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path} was written by marginface 0.1, before modules and settings got other names, "
            "and cannot be resumed. It can be evaluated, and backbone.weights=<file> starts a new "
            "run from its weights; to resume it, install the version that wrote it"
        )
    return state


# Settings of how a run is executed, not of what it computes; a resumed run may change them.
EXECUTION_SETTINGS = (
    "trainer", "callbacks", "logger", "paths", "resume", "name", "validate_untrained",
    "plugins", "compile", "gradient_checkpointing", "async_checkpoints", "keep_freed_memory",
    "data.num_workers", "data.eval_batch_size", "data.root", "data.dataset.root", "data.pairs",
    "classifier.chunk_mib", "classifier.separate_file_above_mib",
    "classifier.optimizer_in_backward", "classifier.kernel", "classifier.matmul_precision",
)  # fmt: skip
# Settings that did not exist when older runs began, and what these did.
_ADDED = {
    "data.dataset.depth": 1, "data.dataset.image_key": "image-{:09d}",
    "data.dataset.label_key": "label-{:09d}", "data.dataset.first": 1, "data.dataset.labels": None,
}  # fmt: skip
# Those that change the last digits of what is computed, so a resumed run says so.
_ROUNDING_SETTINGS = ("classifier.kernel", "classifier.matmul_precision")


def changed_execution(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each changed setting that changes the last digits of what a run computes."""
    old, new = flatten(before["config"]), flatten(now["config"])
    return [
        f"resuming with {key}={new[key]}, before {old[key]}: the last digits will differ"
        for key in _ROUNDING_SETTINGS
        if key in old and key in new and old[key] != new[key]
    ]


def check_same_run(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """InputError that lists every setting by which two runs are not the same one.

    Args:
        path: where `before` comes from, for the message.
        before, now: descriptions with "config" and "data" as stored in a checkpoint.
    """
    old, new = (_settings(description) for description in (before, now))
    old = {key: value for key, value in _ADDED.items() if key in new} | old
    changed = [
        f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise InputError(
            f"{path} belongs to another run ({'; '.join(changed)}). Use the same settings to "
            "resume, another hydra.run.dir for a new run, or backbone.weights=<file> to start from "
            "its weights"
        )


def _settings(description: dict[str, Any]) -> dict[str, Any]:
    flat = flatten({**description["config"], "data fingerprint": description["data"]})
    return {
        key: value
        for key, value in flat.items()
        if not any(key == k or key.startswith(f"{k}.") for k in EXECUTION_SETTINGS)
    }
