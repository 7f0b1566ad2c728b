"""Counting optimizer steps; Lightning counts micro-batches."""

from typing import Any

import lightning as L

from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError


def steps_per_epoch(trainer: L.Trainer) -> int:
    """Optimizer steps in an epoch of this run, known once the training data is set up."""
    return int(trainer.num_training_batches) // trainer.accumulate_grad_batches


def ends_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether micro-batch `batch_idx` was the last one of an optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def keep_steps_whole(trainer: L.Trainer) -> None:
    """See that epochs end, and `val_check_interval` puts validation, between two optimizer steps.

    What would be kept as best within a step could not be resumed from. A validation that would come
    within one is put off to its end.

    Raises:
        InputError: an epoch is not a whole number of steps, or `val_check_interval` is a time.
    """
    batches, parts = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    if batches < 1 or batches % parts:
        raise InputError(
            f"an epoch of {batches} micro-batches is not a whole number of optimizer steps of "
            f"{parts}; set trainer.limit_train_batches to a multiple of "
            "trainer.accumulate_grad_batches"
        )
    every = trainer.val_check_batch
    if parts == 1 or not trainer.enable_validation:
        return
    if every is None:
        raise InputError(
            "trainer.val_check_interval is a time, which may be over within an optimizer step of "
            f"{parts} micro-batches; give a number of micro-batches"
        )
    if every % parts:
        trainer.val_check_batch = whole = int(-(-every // parts) * parts)
        rank_zero_print(
            f"validation every {whole} micro-batches instead of {int(every)}: after whole "
            f"optimizer steps of {parts}"
        )


def logs_step(trainer: L.Trainer, step: int) -> bool:
    """Whether optimizer step `step` (from 0) is logged.

    These are the first, every n-th, those after which validation runs, and the last.
    """
    done = step + 1
    every = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]  # set by a connector
    return (
        step == 0
        or (every > 0 and done % every == 0)
        or done % steps_per_epoch(trainer) == 0
        or validates_after(trainer, done)
        or done == trainer.max_steps
    )


def validates_after(trainer: L.Trainer, done: int) -> bool:
    """Whether a validation follows when `done` optimizer steps are done, by Lightning's rule."""
    batches = getattr(trainer, "val_check_batch", None)  # known once the training data is set up
    if done == 0 or not trainer.enable_validation or batches is None:  # None: by the clock
        return False
    epochs = trainer.check_val_every_n_epoch
    before, in_epoch = divmod(done - 1, steps_per_epoch(trainer))
    counted = done if epochs is None else in_epoch + 1
    is_its_epoch = epochs is None or (before + 1) % epochs == 0
    return is_its_epoch and counted * trainer.accumulate_grad_batches % batches == 0


def correct_epoch_count(fit_loop: dict[str, Any], done: int, per_epoch: int) -> None:
    """Make a checkpoint's loop state count the epoch that step `done` belongs to.

    A run of Lightning 2.6 that resumes from the end of an epoch does not count the next one, so its
    own checkpoints would begin again with an epoch that is over.
    """
    before = max(done - 1, 0) // per_epoch
    for counts in (fit_loop["epoch_progress"]["total"], fit_loop["epoch_progress"]["current"]):
        counts.update(ready=before + 1, started=before + 1, processed=before, completed=before)


def rescale_micro_batches(fit_loop: dict[str, Any], before: int, now: int) -> None:
    """Change a checkpoint's loop state from `before` micro-batches per step to `now`."""
    if before == now:
        return
    # Checkpoints are written in on_train_batch_end: of the last micro-batch all but `completed` is
    # counted, so it must end up one short.
    progress = fit_loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        ready = counts["ready"] // before * now
        counts.update(ready=ready, started=ready, processed=ready, completed=max(ready - 1, 0))
