"""Sub-center ArcFace: nearest of K centers, dominant centers, outliers."""

import torch

from marginface.heads import MarginHead, create_head
from marginface.heads.analysis.subcenters import dominant_centers, subcenter_report


def make() -> MarginHead:
    head = create_head("subcenter_arcface", embedding_size=2, num_classes=2, sub_centers=2)
    # Class 0 at 0 and 90 degrees, class 1 at 180 and 225 degrees.
    angles = torch.tensor([0.0, 90.0, 180.0, 225.0]).deg2rad()
    head.weight.data = torch.stack([angles.cos(), angles.sin()], 1)
    return head


def at(degrees: list[float]) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_cosine_is_to_the_nearest_sub_center() -> None:
    expected = torch.tensor([[80.0, 55.0], [10.0, 100.0]]).deg2rad().cos()
    torch.testing.assert_close(
        make().logits(at([280.0, 80.0]), torch.tensor([-1, -1])) / 64, expected
    )


def test_report() -> None:
    head = make()
    embeddings = at([5, 10, 80, 85, 95, 230, 220, 185])
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    report = subcenter_report(head, embeddings, labels)
    assert report.counts.tolist() == [[2, 3], [1, 2]]
    assert report.dominant.tolist() == [1, 1]
    expected = torch.tensor([85.0, 80.0, 10.0, 5.0, 5.0, 5.0, 5.0, 40.0])
    torch.testing.assert_close(report.angle, expected, atol=0.05, rtol=0)
    assert report.outlier.tolist() == [True, True, False, False, False, False, False, False]
    torch.testing.assert_close(dominant_centers(head, report), at([90.0, 225.0]))


def test_one_sub_center_is_arcface() -> None:
    torch.manual_seed(0)
    one = create_head("subcenter_arcface", embedding_size=4, num_classes=3, sub_centers=1)
    arcface = create_head("arcface", embedding_size=4, num_classes=3, margin_gradient="exact")
    arcface.load_state_dict(one.state_dict())
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.equal(one(embeddings, labels), arcface(embeddings, labels))
