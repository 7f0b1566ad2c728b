"""Writing checkpoints atomically, and reading back what is needed to resume."""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO as WrappingCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from marginface.training.checkpoints.centers import remove_old_folders
from marginface.utils.errors import CheckpointWriteError
from marginface.utils.files import atomic_write


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
            raise write_error(path, error) from error
        # Only now does nothing need the files next to the checkpoint before.
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


def write_error(path: str | Path, error: Exception) -> CheckpointWriteError:
    """The error for a checkpoint that cannot be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    cause = error.__context__  # torch fails a second time when it closes what it could not write
    if isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    free = shutil.disk_usage(Path(path).parent).free // 2**20
    return CheckpointWriteError(
        f"could not write {path}: {reason} ({free} MiB free there); the checkpoint before it is "
        "still there, and the same command resumes from it"
    )
