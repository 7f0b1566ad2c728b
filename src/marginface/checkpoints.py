"""Writing checkpoints atomically, and reading back what is needed before a run goes on."""

import shutil
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO as WrappingCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from marginface.errors import InputError, MissingInputError, NotSavedError
from marginface.files import atomic_write
from marginface.head_checkpoint import remove_old_folders
from marginface.runinfo import RunFolder, check_same_run


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, renamed into place only when they are complete on disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        for stale in Path(path).parent.glob(f".{Path(path).name}.*.tmp"):
            stale.unlink(missing_ok=True)  # of a process that was killed while it wrote
        try:
            with atomic_write(Path(path)) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as either
            raise not_saved(path, error) from error
        # Only now does nothing need what lay beside the checkpoint before.
        head = checkpoint.get("marginface", {}).get("head", {})
        remove_old_folders(Path(path), head.get("folder"))


class BackgroundCheckpointIO(WrappingCheckpointIO):
    """Writes checkpoints in a thread, from a copy, one at a time."""

    def __init__(self, checkpoint_io: CheckpointIO) -> None:
        super().__init__(checkpoint_io)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        self.wait()
        copy = apply_to_collection(checkpoint, torch.Tensor, lambda tensor: tensor.clone())
        self._pending = self._thread.submit(super().save_checkpoint, copy, path, storage_options)

    def load_checkpoint(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.wait()
        return super().load_checkpoint(*arguments, **options)

    def wait(self) -> None:
        """Until the last checkpoint is on disk; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        self.wait()
        super().teardown()


def not_saved(path: str | Path, error: Exception) -> NotSavedError:
    """What to say when a checkpoint cannot be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    cause = error.__context__  # torch fails a second time when it closes what it could not write
    if isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    free = shutil.disk_usage(Path(path).parent).free // 2**20
    return NotSavedError(
        f"could not write {path}: {reason} ({free} MiB free there); the checkpoint before it is "
        "still there, and the same command goes on from it"
    )


def checkpoint_to_resume(
    resume: str, folder: RunFolder, description: dict[str, Any]
) -> Path | None:
    """The checkpoint a run goes on from, None for a fresh start.

    Args:
        resume: "auto" goes on when `folder` holds a checkpoint, "never" refuses to, anything else
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
                "choose another hydra.run.dir, or resume=auto to go on"
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
    stored = read_checkpoint(path).get("marginface", {}).get("description")
    if stored is None:
        raise InputError(
            f"{path} was not written by marginface and cannot be resumed; "
            "backbone.weights=<file> starts from its weights"
        )
    check_same_run(path, stored, description)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content; nothing in it is run."""
    try:
        # Files of torch before 1.6 are no zip archives and cannot be mapped.
        mmap = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch has many ways to refuse a file
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, not a checkpoint")
    return content
