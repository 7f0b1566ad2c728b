"""Inspection of a set of faces: every image is read once, faults and suspicions are listed."""

from collections import Counter
from pathlib import Path

import numpy as np

from marginface.data.dataset import FaceDataset
from marginface.data.formats import open_faces
from marginface.data.formats.folder import FolderDataset
from marginface.data.images import Alpha, ImageRules
from marginface.data.pairs.verification_sets import load_pairs
from marginface.inference.embedder import load_embedder
from marginface.inspection.alignment_check import check_alignment
from marginface.inspection.duplicates import find_duplicates
from marginface.inspection.findings import Findings
from marginface.inspection.identities import compare_identities
from marginface.inspection.inspected_set import InspectedSet, OnProgress
from marginface.inspection.measurements import ImageMeasurements, measure
from marginface.inspection.overlap import find_overlap, find_persons_of
from marginface.reporting.html_page import grid
from marginface.utils.errors import InputError


def inspect_data(
    root: str | Path,
    *,
    format: str | None = None,
    image_size: int | None = None,
    alpha: Alpha = "refuse",
    pairs: list[str] | None = None,
    pairs_root: str | Path | None = None,
    checkpoint: str | Path | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Findings:
    """Inspect a set of faces of any format.

    Args:
        root: where it is.
        format: of it, when it cannot be seen.
        image_size: S that all images must have; the most common one when not given.
        alpha: what training will do with transparency; `refuse` makes it a fault.
        pairs_root: folder of the images that pair lists name.
        pairs: test sets that must not share images (or with a checkpoint persons) with it.
        checkpoint: a run folder or .ckpt; its embeddings find wrong labels.
        on_progress: called with the stage, and how many images of how many are done.

    Raises:
        InputError: a set that cannot be opened.
    """
    faces = _open(root, format)
    # Opened first: a mistake in them should not come out after an hour.
    embedder = None if checkpoint is None else load_embedder(checkpoint)
    tests = [load_pairs(path, root=pairs_root) for path in pairs or []]
    inspected = InspectedSet(Path(root), faces)
    _count(inspected)
    rules = ImageRules(size=None, alpha=alpha)
    images = measure(faces, rules, lambda done, total: on_progress("reading", done, total))
    _check_images(inspected, images, image_size)
    find_duplicates(inspected, images)
    check_alignment(inspected, images, on_progress)
    _show_outliers(inspected, images)
    _show_samples(inspected, images)
    centers = None
    if embedder is not None:
        centers = compare_identities(inspected, images, embedder, on_progress)
    for test in tests:
        is_readable = find_overlap(inspected, images, test, on_progress)
        if embedder is None or centers is None:
            continue
        if is_readable:
            find_persons_of(inspected, centers, test, embedder)
        else:
            note = f"{test.path}: not embedded, because of the images above"
            inspected.findings.notes.append(note)
    return inspected.findings


def _open(root: str | Path, format: str | None) -> FaceDataset:
    """As training does; identities without images are kept, because they are faults to list."""
    try:
        return open_faces(root, format)
    except InputError as error:
        if "label_gaps" not in str(error):
            raise
        return open_faces(root, format, label_gaps="keep")


def _count(inspected: InspectedSet) -> None:
    """How many images of whom; identities without images, files that are not images."""
    counts = np.bincount(inspected.faces.labels, minlength=inspected.faces.num_classes)
    inspected.findings.images_per_identity = counts
    inspected.findings.counts = {
        "images": len(inspected.faces),
        "identities": int((counts > 0).sum()),
        "fewest images of an identity": int(counts[counts > 0].min()),
        "median": float(np.median(counts[counts > 0])),
        "most": int(counts.max()),
        "identities with one image": int((counts == 1).sum()),
    }
    for label in np.flatnonzero(counts == 0).tolist():
        inspected.fault("empty identity", f"label {label}", "no image has this label")
    if isinstance(inspected.faces, FolderDataset):
        for path in inspected.faces.ignored:
            if "/" in path:
                inspected.fault("no image", path, "not an image by its name, training ignores it")
            else:
                inspected.findings.notes.append(
                    f"{path} is next to the folders of identities and is not read"
                )
        for identity in inspected.faces.empty:
            inspected.fault("empty identity", f"{identity}/", "a folder without images")


def _check_images(
    inspected: InspectedSet, images: ImageMeasurements, image_size: int | None
) -> None:
    """Damaged images, other sizes, swapped colors."""
    for index, reason in sorted(images.faults.items()):
        inspected.fault("damaged", inspected.name(index), reason)
    shapes = Counter(map(tuple, images.shape[images.readable].tolist()))
    if not shapes:
        return
    common, number = shapes.most_common(1)[0]
    if image_size is None and 2 * number < shapes.total():
        inspected.fault(
            "size", inspected.findings.root,
            f"images have {len(shapes)} sizes, the most frequent in {number} of {shapes.total()}; "
            "a network takes one size: align the faces with `marginface align`",
        )  # fmt: skip
        inspected.findings.counts["size"] = f"{len(shapes)} sizes"
        _note_swapped_colors(inspected, images)
        return
    expected = common if image_size is None else (image_size, image_size)
    whose = "most images have" if image_size is None else "expected"
    inspected.findings.counts["size"] = f"{expected[1]}x{expected[0]}"
    other = images.readable & (images.shape != expected).any(1)
    for index in np.flatnonzero(other).tolist():
        height, width = images.shape[index]
        inspected.fault(
            "size",
            inspected.name(index),
            f"{width}x{height} pixels, {whose} {expected[1]}x{expected[0]}",
        )
    _note_swapped_colors(inspected, images)


def _note_swapped_colors(inspected: InspectedSet, images: ImageMeasurements) -> None:
    red, _, blue = images.color[images.readable].mean(0)
    if blue > red + 3:
        inspected.findings.notes.append(
            f"the faces are bluer than red (blue {blue:.0f}, red {red:.0f}): red and blue are "
            "probably swapped"
        )


def _show_outliers(inspected: InspectedSet, images: ImageMeasurements) -> None:
    """The darkest, brightest and most blurred images."""
    readable = np.flatnonzero(images.readable)
    for title, values, highest in (
        ("darkest", images.brightness, False),
        ("brightest", images.brightness, True),
        ("most blurred", images.sharpness, False),
    ):
        order = readable[np.argsort(values[readable])]
        chosen = (order[::-1] if highest else order)[:12]
        if len(chosen):
            inspected.findings.outliers[title] = [
                (inspected.name(int(i)), round(float(values[i]), 2)) for i in chosen
            ]
            inspected.findings.sheets[f"{title}: from left to right"] = grid(
                inspected.pictures(chosen)
            )


def _show_samples(inspected: InspectedSet, images: ImageMeasurements) -> None:
    """Some images at random."""
    readable = np.flatnonzero(images.readable)
    chosen = np.sort(np.random.default_rng(1).permutation(readable)[:48])
    if len(chosen):
        inspected.findings.sheets["contact sheet: 48 images at random"] = grid(
            inspected.pictures(chosen)
        )
