"""Axes of charts: where values lie on them, and where which number is written."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Scale = Literal["linear", "log", "deviate"]
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS = 6
_PROBABILITIES = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)


class Axis(NamedTuple):
    """Where an axis begins and ends, and what it says.

    Attributes:
        label: what it shows, with the unit.
        low, high: its ends.
        scale: `log` shows powers of ten; `deviate` probabilities as standard normal deviates, in
            which the errors of normally distributed scores lie on a straight line (Martin et al.
            1997, the DET curve).
    """

    label: str
    low: float
    high: float
    scale: Scale = "linear"

    def place(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values to [0, 1]; those outside are moved to the edge, NaN stays."""
        inside = self._scaled(np.clip(np.asarray(values, np.float64), self.low, self.high))
        low, high = self._scaled(np.array([self.low, self.high]))
        return (inside - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Where to write what."""
        if self.scale == "log":
            first = math.ceil(math.log10(self.low) - 1e-9)
            last = math.floor(math.log10(self.high) + 1e-9)
            every = -(-(last - first + 1) // _MOST_TICKS)
            return [(10.0**n, f"1e{n}" if n else "1") for n in range(first, last + 1, every)]
        if self.scale == "deviate":
            return [
                (p, f"{100 * p:g} %")
                for p in _PROBABILITIES
                if self.low * (1 - 1e-9) <= p <= self.high * (1 + 1e-9)
            ]
        step = _step(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(n * step, _number(n * step, step)) for n in range(first, last + 1)]

    def _scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.scale == "linear":
            return values
        return np.log10(values) if self.scale == "log" else ndtri(values)


def fitted(label: str, *values: NDArray[np.floating], low: float | None = None) -> Axis:
    """A linear axis that holds all finite values.

    Args:
        label: what it shows.
        low: where it begins; null leaves it to the values.
    """
    known = np.concatenate([np.asarray(v, np.float64).ravel() for v in values] or [np.empty(0)])
    known = known[np.isfinite(known)]
    least = low if low is not None else float(known.min(initial=np.inf))
    most = float(known.max(initial=-np.inf))
    if not math.isfinite(least) or not math.isfinite(most):
        return Axis(label, 0.0, 1.0)
    if most - least <= 1e-9 * max(abs(most), abs(least), 1e-9):
        pad = abs(most) / 10 or 1.0
        return Axis(label, least if low is not None else least - pad, most + pad)
    room = (most - least) / 25
    return Axis(label, least if low is not None else least - room, most + room)


def _step(span: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that gives few enough ticks."""
    power = 10.0 ** math.floor(math.log10(span / (_MOST_TICKS - 1)))
    return next(power * s for s in _STEPS if span / (power * s) <= _MOST_TICKS - 1 + 1e-9)


def _number(value: float, step: float) -> str:
    if abs(value) < step / 1e6:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and size > 1e3):
            return f"{value / size:g}{letter}"
    return f"{value:.10g}"
