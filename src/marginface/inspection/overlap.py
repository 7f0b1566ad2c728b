"""Overlap with a test set: shared images, and with a network shared persons."""

from torch import Tensor
from torch.nn.functional import normalize

from marginface.data.images import ImageRules
from marginface.data.pairs.verification_sets import PairFile
from marginface.inference.embedder import Embedder
from marginface.inspection.duplicates import SAME_PICTURE, between, likeness
from marginface.inspection.identities import alike_identities
from marginface.inspection.inspected_set import AS_SHOWN, InspectedSet, OnProgress
from marginface.inspection.measurements import ImageMeasurements, measure


def find_overlap(
    inspected: InspectedSet,
    images: ImageMeasurements,
    tests: PairFile,
    on_progress: OnProgress,
) -> bool:
    """Images shared with a test set; whether all of its images could be read."""
    path = tests.path
    test_images = measure(
        tests,
        ImageRules(size=None, alpha="drop"),
        lambda done, total: on_progress(f"reading {tests.name}", done, total),
    )
    for image, test in between(images.phash, test_images.phash).tolist():
        shown = AS_SHOWN.decode(tests.image_bytes(test))
        if likeness(inspected.picture(image), shown) < SAME_PICTURE:
            continue
        inspected.fault(
            "test image",
            inspected.name(image),
            f"nearly the same picture as image {test} of {path}; the test set would be trained on",
        )
    for index, reason in sorted(test_images.faults.items()):
        inspected.findings.notes.append(f"{tests.describe(index)}: {reason}")
    return not test_images.faults


def find_persons_of(
    inspected: InspectedSet, centers: Tensor, tests: PairFile, embedder: Embedder
) -> None:
    """Identities that may be persons of a test set."""
    tests.resize_to(embedder.image_size)
    embeddings = normalize(embedder.embed(tests))
    seen: set[int] = set()
    for pair in alike_identities(centers, embeddings):
        if pair.first not in seen:
            seen.add(pair.first)
            inspected.suspicion(
                "test person",
                inspected.faces.identity(pair.first),
                f"may be the person in image {pair.second} of {tests.path} "
                f"(cosine {pair.cosine:.2f})",
            )
