"""Evaluation as pure functions on arrays; nothing here knows about training.

Wrappers for torchmetrics are in `evaluation.metrics`, which takes seconds to import.
"""

from marginface.evaluation.identify import identification
from marginface.evaluation.pairs import PairResult, evaluate_pairs
from marginface.evaluation.roc import roc_curve, tar_at_far
from marginface.evaluation.templates import (
    aggregate_templates,
    score_templates,
    weigh_features,
)

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
