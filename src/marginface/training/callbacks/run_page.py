"""The callback that writes report.html while a run is under way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from marginface.pages.run_page import write_run_page
from marginface.runs.folder import RunFolder
from marginface.runs.status import note_status
from marginface.training.curves import validation_curves
from marginface.training.module import FaceRecognizer
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import first_line


class RunPage(Callback):
    """Writes the page of a run after every validation; a run writes it at its end anyway.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.folder = RunFolder(Path(run_dir))

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)
            with never_stopping(self.folder.status):
                note_status(self.folder, "running", step=trainer.global_step, total_steps=total)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        with never_stopping(self.folder.curves):
            step = module.verification.after_steps
            if module.verification.results and step:  # those of the untrained network are no result
                sets = validation_curves(module.verification.results)
                self.folder.add_curves({"validation": {"after_steps": step, "sets": sets}})
        if trainer.state.fn == "fit":  # of the untrained network there is nothing to draw yet
            write_page(self.folder)


def write_page(folder: RunFolder) -> None:
    """Write the page of a run, or say why not."""
    with never_stopping(folder.report):
        write_run_page(folder)


@contextmanager
def never_stopping(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file that is only looked at: days of training go on."""
    try:
        yield
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        rank_zero_warn(
            f"{path} was not written: {reason}; `MARGINFACE_TRACEBACK=1 marginface report "
            f"{path.parent}` may say more"
        )
