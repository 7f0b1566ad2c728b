"""Where metrics go: a CSV file always, Weights & Biases by default."""

from marginface.training.loggers.csv import MetricsCsv
from marginface.training.loggers.wandb import wandb_logger

__all__ = ["MetricsCsv", "wandb_logger"]
