"""A request to stop the run, agreed on by all processes."""

from dataclasses import dataclass


@dataclass
class StopRequest:
    """What a signal handler leaves for the training step, which asks all processes.

    Attributes:
        received: number of the signal this process got.
        agreed: number of the signal that any process got; the same everywhere, after a step.
    """

    received: int | None = None
    agreed: int | None = None
