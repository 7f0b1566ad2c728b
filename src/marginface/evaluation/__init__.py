"""Evaluation as pure functions on arrays; nothing here knows about training.

The wrapper for torchmetrics is `marginface.metrics.pair_verification`; it takes seconds to import.
"""

from marginface.metrics.identification import identification
from marginface.metrics.roc import roc_curve, tar_at_far
from marginface.metrics.templates import aggregate_templates, score_templates, weigh_features
from marginface.metrics.verification import PairResult, evaluate_pairs

__all__ = [
    "PairResult",
    "aggregate_templates",
    "evaluate_pairs",
    "identification",
    "roc_curve",
    "score_templates",
    "tar_at_far",
    "weigh_features",
]
