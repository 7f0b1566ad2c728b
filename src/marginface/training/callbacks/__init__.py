"""Callbacks: metrics to the loggers, checkpoints, preemption."""
