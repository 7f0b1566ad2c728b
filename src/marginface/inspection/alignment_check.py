"""Whether faces sit on the five-point template: the set, its identities, single crops."""

import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.mean_face import fit_template
from marginface.inspection.inspected_set import InspectedSet, OnProgress
from marginface.inspection.measurements import ImageMeasurements
from marginface.inspection.misalignment import MAX_OFFSET, MIN_CROPS, crop_offsets

_IDENTITY_OFFSET = 3.5  # pixels at 112: of 570 aligned identities the worst median was 2.1
_MIN_CROPS_OF_IDENTITY = 3  # for a median


def check_alignment(
    inspected: InspectedSet, images: ImageMeasurements, on_progress: OnProgress
) -> None:
    """Whether the set, its identities and single crops sit on the template."""
    findings = inspected.findings
    usable = int(images.readable.sum())
    if not usable:
        return
    findings.mean_face = images.rgb / usable
    fit = findings.fit = fit_template(images.gray)
    if not fit.is_aligned:
        inspected.fault(
            "alignment",
            findings.root,
            f"the mean face is off the five-point template: it fits best {fit.scale:g} times "
            f"as large, turned by {fit.turn:g} degrees and shifted by ({fit.right:g}, "
            f"{fit.down:g}) pixels; align the faces with `marginface align`",
        )
    if usable < MIN_CROPS:
        findings.notes.append(
            f"single crops were not checked for alignment: {usable} images are too few to "
            f"learn their position, {MIN_CROPS} are needed"
        )
        return
    indices = np.flatnonzero(images.readable)
    offsets = crop_offsets(inspected.faces, indices, on_progress)
    _report_offsets(inspected, offsets)


def _report_offsets(inspected: InspectedSet, offsets: NDArray[np.float64]) -> None:
    order = np.argsort(inspected.faces.labels, kind="stable")
    bounds = np.flatnonzero(np.diff(inspected.faces.labels[order])) + 1
    whole: set[int] = set()
    for crops in np.split(order, bounds):
        known = offsets[crops][~np.isnan(offsets[crops])]
        if len(known) >= _MIN_CROPS_OF_IDENTITY and np.median(known) > _IDENTITY_OFFSET:
            whole.add(int(inspected.faces.labels[crops[0]]))
            inspected.fault(
                "alignment",
                inspected.identity(int(crops[0])),
                f"its {len(known)} crops are not aligned as the others are, by about "
                f"{np.median(known):.0f} pixels at 112",
            )
    in_whole = np.isin(inspected.faces.labels, list(whole))
    off = np.flatnonzero((offsets > MAX_OFFSET) | (in_whole & (offsets > _IDENTITY_OFFSET)))
    for index in off[np.argsort(-offsets[off])].tolist():
        add = inspected.fault if in_whole[index] else inspected.suspicion
        add(
            "alignment",
            inspected.name(index),
            f"not aligned as the others are, by about {offsets[index]:.0f} pixels at 112",
        )
