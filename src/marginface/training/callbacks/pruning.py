"""The callback that ends hopeless trials of an Optuna sweep early."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from marginface.runs.folder import RunFolder
from marginface.runs.status import note_status
from marginface.training.module import FaceRecognizer
from marginface.utils.console import rank_zero_print, rank_zero_warn
from marginface.utils.errors import first_line
from marginface.utils.optional_packages import require_package


class TrialPruning(Callback):
    """Reports every validation to the study and stops a run below the median of those before.

    The sweeper adds it to its jobs; a run that is stopped so ends like a finished one.

    Args:
        storage, study_name: of the study.
        trial_id: of this run in the storage.
        startup_trials: that are never stopped.
        monitor: the number that is reported.
    """

    def __init__(
        self,
        storage: str,
        study_name: str,
        trial_id: int,
        startup_trials: int = 4,
        monitor: str = "val/mean/accuracy",
    ) -> None:
        self.storage, self.study_name, self.trial_id = storage, study_name, trial_id
        self.startup_trials, self.monitor = startup_trials, monitor
        self._trial: Any = None

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        value = module.verification.metrics().get(self.monitor)
        if value is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        # One process asks; all of them stop.
        is_hopeless = trainer.is_global_zero and self._is_hopeless(value, trainer.global_step)
        if trainer.strategy.broadcast(is_hopeless):
            if trainer.is_global_zero:
                note_status(RunFolder(trainer.default_root_dir), "running", pruned=True)
            rank_zero_print(
                f"stopped after {trainer.global_step} steps: {self.monitor} {value:.4f} is worse "
                "than the median of the trials before"
            )
            trainer.should_stop = True

    def _is_hopeless(self, value: float, step: int) -> bool:
        """The study's word on it; where its database cannot be had, the run goes on."""
        try:
            trial = self._connected()
            trial.report(value, step)
            if not trial.should_prune():
                return False
            trial.set_user_attr("pruned", True)
        except Exception as error:
            rank_zero_warn(f"{self.storage} was not told of this validation: {first_line(error)}")
            return False
        return True

    def _connected(self) -> Any:
        if self._trial is None:
            optuna = require_package("optuna", extra="optuna")
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            pruner = optuna.pruners.MedianPruner(n_startup_trials=self.startup_trials)
            study = optuna.load_study(
                study_name=self.study_name, storage=self.storage, pruner=pruner
            )
            self._trial = optuna.trial.Trial(study, self.trial_id)
        return self._trial
