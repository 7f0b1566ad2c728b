"""Evaluation as pure functions on arrays; nothing here knows about training."""

from marginface.evaluation.pairs import PairResult, evaluate_pairs
from marginface.evaluation.roc import roc_curve, tar_at_far

__all__ = ["PairResult", "evaluate_pairs", "roc_curve", "tar_at_far"]
