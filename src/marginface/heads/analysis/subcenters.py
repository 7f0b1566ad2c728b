"""Which sub-center of a class its images gather around, and which images are far from it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.heads._head import MarginHead


@dataclass(frozen=True)
class SubcenterReport:
    """What the K centers of each class were used for, over N images."""

    counts: Tensor  # (C, K) images nearest to each sub-center of their own class
    dominant: Tensor  # (C,) the sub-center with most images, the first of equals
    angle: Tensor  # (N,) degrees to the dominant center of the own class
    outlier: Tensor  # (N,) bool: further than max_angle


CHUNK = 4096  # images whose own sub-centers are in memory at a time


@torch.no_grad()
def subcenter_report(
    head: MarginHead, embeddings: Tensor, labels: Tensor, max_angle: float = 75.0
) -> SubcenterReport:
    """Dominant centers and outliers of a trained sub-center head.

    The paper then trains plain ArcFace anew on the images that are not outliers.

    Args:
        head: trained head.
        embeddings: (N, D) raw embeddings of the training images.
        labels: (N,) int64 in [0, C).
        max_angle: degrees beyond which an image is an outlier; 75 in the official drop.py.
    """
    centers = F.normalize(head.weight.detach()).unflatten(
        0, (head.num_classes, head.centers.centers_per_class)
    )
    own = torch.cat(
        [
            torch.einsum("nd,nkd->nk", F.normalize(e), centers[y])
            for e, y in zip(embeddings.split(CHUNK), labels.split(CHUNK), strict=True)
        ]
    )
    counts = labels.new_zeros((head.num_classes, head.centers.centers_per_class))
    counts.index_put_((labels, own.argmax(1)), torch.ones_like(labels), accumulate=True)
    dominant = counts.argmax(1)
    cosine = own.gather(1, dominant[labels][:, None])[:, 0]
    angle = cosine.clamp(-1, 1).arccos().rad2deg()
    return SubcenterReport(counts, dominant, angle, angle > max_angle)


def dominant_centers(head: MarginHead, report: SubcenterReport) -> Tensor:
    """(C, D) the dominant center of each class, to start a head with one center per class from."""
    first = (
        torch.arange(head.num_classes, device=report.dominant.device)
        * head.centers.centers_per_class
    )
    rows = first + report.dominant
    return head.weight.detach()[rows]
