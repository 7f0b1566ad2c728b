"""Preemption: checkpoint and exit on SIGTERM or SIGUSR1."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning as L

from marginface.training.callbacks.base import StepCallback
from marginface.training.callbacks.checkpoints import (
    LastCheckpoint,
    save_checkpoint,
    wait_for_checkpoints,
)
from marginface.training.module import FaceRecognizer
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError, PreemptedError


class Preemption(StepCallback):
    """On one of the signals: finish the optimizer step, write last.ckpt, end with the exit code.

    The signal may reach any of the processes; all of them stop after the same step. The same
    command resumes from there.

    Args:
        signals: names; SLURM sends SIGUSR1 when asked to (--signal=USR1@90), then SIGTERM.
        exit_code: 75 is EX_TEMPFAIL, "try again"; set SLURM's RequeueExit to it.
    """

    def __init__(self, signals: list[str] | None = None, exit_code: int = 75) -> None:
        self.signals = [_number_of(name) for name in signals or ["SIGTERM", "SIGUSR1"]]
        self.exit_code = exit_code
        self._before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._install(module)
        connector = trainer._signal_connector

        def register() -> None:
            type(connector).register_signal_handlers(connector)
            self._install(module)

        # Lightning installs its own in every stage, which talk to other processes while they handle
        # a signal. Ours take their place at once, or a signal in between would go to these.
        connector.register_signal_handlers = register  # type: ignore[method-assign]
        if signal.SIGTERM in self.signals:
            # Lightning would ask the first process before every batch whether it has got one, and
            # wait for the device to know the answer.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _ask_nobody  # type: ignore[method-assign]

    def _install(self, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)

        def wanted(number: int, frame: FrameType | None) -> None:
            module.stop_request.received = number

        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                self._before.setdefault(number, signal.getsignal(number))
                signal.signal(number, wanted)

    def restore(self) -> None:
        """What was there before; called when the run is over."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_step_end(self, trainer: L.Trainer, module: FaceRecognizer) -> None:
        if module.stop_request.agreed is None:
            return
        name = signal.Signals(module.stop_request.agreed).name
        writers = [c for c in trainer.callbacks if isinstance(c, LastCheckpoint)]  # type: ignore[attr-defined]
        if not writers:
            raise PreemptedError(f"{name}: stopped without a checkpoint, none is kept", 1)
        save_checkpoint(trainer, module, writers[0].path)
        wait_for_checkpoints(trainer)
        trainer.strategy.barrier()  # others that ended first would have the first one killed
        rank_zero_print(
            f"{name}: stopped after {trainer.global_step} steps, {writers[0].path} is written"
        )
        raise PreemptedError(f"stopped by {name}; the same command resumes", self.exit_code)


def _ask_nobody() -> None:
    """Signals travel with the losses, see `FaceRecognizer.training_step`."""


def _number_of(name: str) -> signal.Signals:
    try:
        return signal.Signals[name]
    except KeyError:
        raise InputError(
            f"callbacks.preemption.signals: {name!r} is not a signal of this system; SIGTERM and "
            "SIGUSR1 are usual"
        ) from None
