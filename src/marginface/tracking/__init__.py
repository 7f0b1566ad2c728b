"""Where metrics go: a CSV file always, Weights & Biases by default."""

from marginface.tracking.csv import MetricsCsv
from marginface.tracking.wandb import wandb_logger

__all__ = ["MetricsCsv", "wandb_logger"]
