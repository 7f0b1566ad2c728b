"""What is wrong with a run, in words, and what to change."""

import math
from collections.abc import Callable

import numpy as np

from marginface.pages.run_data import MEAN_ACCURACY, RunData
from marginface.runs.metrics import known

FIRST_LOSS_TOLERANCE = 0.30  # share of the expected loss that the first one may be away from it
_WAITING = 0.20
_ENOUGH_ROWS = 10  # logged steps that a trend is read from
_ENOUGH_STEPS = 60  # optimizer steps after which a loss should have fallen
_LONG = 200  # optimizer steps after which gradients should have become small
_DEVIATIONS = 2.5
_NEAR_CHANCE = 0.03  # accuracy above that of guessing
_ALWAYS = 0.95


def run_warnings(run: RunData) -> list[str]:
    """Sentences on what is wrong, each with what to change; empty for a healthy run."""
    checks: list[Callable[[RunData], str | None]] = [
        _ended_early, _first_loss, _loss, _verification, _overfitting, _waiting, _clipping,
        _grad_scale,
    ]  # fmt: skip
    return [warning for check in checks if (warning := check(run)) is not None]


def _ended_early(run: RunData) -> str | None:
    if run.status.state != "stopped":
        return None
    if not run.status.reason:
        resumes = "resumes it" if run.run.last.is_file() else "begins it anew: no checkpoint yet"
        return (
            "The run stopped without saying why (killed, out of memory, or the machine went "
            f"down). The same command with hydra.run.dir={run.run.path} {resumes}."
        )
    return f"The run stopped: {run.status.reason}"


def _first_loss(run: RunData) -> str | None:
    expected = run.info.get("expected_first_loss")
    steps, loss = known(run.columns, "train/loss")
    if expected is None or not len(steps) or steps[0] != 0:
        return None
    if abs(loss[0] - expected) <= FIRST_LOSS_TOLERANCE * expected:
        return None
    return (
        f"The first loss was {loss[0]:.4g}, and random class centers give {expected:.4g}: are "
        "labels, head weights and normalization what you think they are?"
    )


def _loss(run: RunData) -> str | None:
    """Of a run that has had time: not lower at its end than at its beginning, or higher between."""
    steps, loss = known(run.columns, "train/loss")
    if len(loss) < _ENOUGH_ROWS or steps[-1] < _ENOUGH_STEPS or _epochs(run) < 1:
        return None
    if run.info.get("margin_moves"):
        return None  # the loss follows the margin
    tenth = max(len(loss) // 10, 3)
    first, last = float(np.median(loss[:tenth])), float(np.median(loss[-tenth:]))
    three = np.lib.stride_tricks.sliding_window_view(loss, 3)
    highest = float(np.median(three, axis=1).max())
    # Random centers give the loss to compare with; trained ones may lose at first.
    begins_untrained = steps[0] == 0 and "expected_first_loss" in run.info
    rises = begins_untrained and highest > 1.03 * loss[0] and last > 0.92 * loss[0]
    if last < 0.97 * first and not rises:
        return None
    rate = known(run.columns, "train/lr")[1].max(initial=0.0)
    how = f"does not fall: {first:.4g} over the first logged steps, {last:.4g} over the last"
    if rises:
        how = f"rose from {loss[0]:.4g} to {highest:.4g}, and ends at {last:.4g}"
    return (
        f"The loss {how}. Most often the learning rate is too high: lower optimizer.lr (its "
        f"highest was {rate:.3g}) or lengthen scheduler.warmup_epochs. Else the labels do not "
        "belong to the images: look at some with `marginface inspect-data`."
    )


def _epochs(run: RunData) -> int:
    """Epochs that were done before the one of the last logged step."""
    return int(known(run.columns, "epoch")[1].max(initial=0.0))


def _verification(run: RunData) -> str | None:
    """People who were not trained on cannot be told apart after several epochs."""
    steps, accuracy = known(run.columns, MEAN_ACCURACY)
    pairs = run.info.get("dataset", {}).get("verification_pairs", {}).values()
    # Of few pairs guessing gives more now and then; a fold's threshold adds to it.
    chance = max([_NEAR_CHANCE, *(_DEVIATIONS * 0.5 / math.sqrt(n) for n in pairs if n)])
    if not len(steps) or _epochs(run) < 2 or accuracy.max() > 0.5 + chance:
        return None
    return (
        f"After {_epochs(run) + 1} epochs unseen people cannot be told apart: the "
        f"accuracy on pairs is {100 * accuracy.max():.1f} %, guessing gives 50 %. Labels that do "
        "not belong to the images (a shuffled list, folders that mix people) look like this; so "
        "does a learning rate that is far too high. Look at the people with "
        "`marginface inspect-data`, then lower optimizer.lr."
    )


def _overfitting(run: RunData) -> str | None:
    trained = known(run.columns, "train/accuracy")[1]
    accuracy = known(run.columns, MEAN_ACCURACY)[1]
    if len(trained) < _ENOUGH_ROWS or len(accuracy) < 3 or np.median(trained[-5:]) < 0.995:
        return None
    if accuracy[-1] > accuracy.max() - 0.01 or accuracy.argmax() == len(accuracy) - 1:
        return None
    return (
        f"Training accuracy is {100 * np.median(trained[-5:]):.1f} % while verification fell from "
        f"{100 * accuracy.max():.2f} to {100 * accuracy[-1]:.2f} %: the training images are known "
        "by heart. Use more people, a stronger augmentation (augmentation=strong), "
        "backbone.dropout or optimizer.weight_decay, or fewer epochs (callbacks=early_stopping)."
    )


def _waiting(run: RunData) -> str | None:
    # The first logged step also waits for the workers to start.
    share = known(run.columns, "speed/data_wait_share")[1][1:]
    if len(share) < 3 or np.median(share) <= _WAITING:
        return None
    workers = run.config.get("data", {}).get("num_workers")
    return (
        f"{100 * np.median(share):.0f} % of the time was spent waiting for data: raise "
        f"data.num_workers (it was {workers}), pack loose files with `marginface pack`, or put "
        "the data on a faster disk."
    )


def _clipping(run: RunData) -> str | None:
    """The norm is above the limit in every step, also long after the beginning."""
    clip = run.config.get("trainer", {}).get("gradient_clip_val")
    by_value = run.config.get("trainer", {}).get("gradient_clip_algorithm") == "value"
    steps, norm = known(run.columns, "train/gradient_norm")
    if not clip or by_value or len(norm) < 2 * _ENOUGH_ROWS or steps[-1] < _LONG:
        return None
    late = norm[len(norm) // 10 :]
    if (late > clip).mean() < _ALWAYS:
        return None
    return (
        f"Gradients are clipped in nearly every step: their norm is {np.median(late):.3g} in the "
        f"middle, trainer.gradient_clip_val is {clip:g}. The learning rate then acts on their "
        "direction alone: raise the limit, or lower optimizer.lr."
    )


def _grad_scale(run: RunData) -> str | None:
    scale = known(run.columns, "train/grad_scale")[1]
    if len(scale) < _ENOUGH_ROWS or scale[-1] >= scale[0] / 16:
        return None
    return (
        f"The scale of the loss fell from {scale[0]:g} to {scale[-1]:g}: float16 overflows again "
        "and again, and those steps are skipped. Train with trainer.precision=bf16-mixed, or "
        "lower optimizer.lr."
    )
