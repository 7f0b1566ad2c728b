"""Class centers and the loss over all of them: full, sampled, sharded over processes; fused.

Tensor names: R rows of the batch that have a label, C classes, K centers of a class, D embedding,
n classes of a chunk. Matrices of a chunk are (n, R): a row for each class.
"""

from marginface.classifier.centers import IGNORED_LABEL, ClassCenters
from marginface.classifier.options import ClassifierOptions
from marginface.classifier.sharding import Shard

__all__ = [
    "IGNORED_LABEL",
    "ClassCenters",
    "ClassifierOptions",
    "Shard",
]
