"""Look at every image of a set once, and say what is wrong with it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from marginface.data.dataset import FaceDataset
from marginface.data.formats import open_faces
from marginface.data.formats.folder import FolderDataset
from marginface.data.images import Alpha, ImageRules, Pixels
from marginface.data.pairs.verification_sets import PairFile, load_pairs
from marginface.inference.embedder import Embedder, load_embedder
from marginface.inspection import misalignment as misalignment
from marginface.inspection.duplicates import (
    SAME_PICTURE,
    between,
    exact_duplicates,
    likeness,
    near_duplicates,
)
from marginface.inspection.findings import Finding, Findings
from marginface.inspection.identities import (
    alike_identities,
    embed_readable,
    identity_centers,
    label_suspects,
)
from marginface.inspection.mean_face import fit_template
from marginface.inspection.measurements import SIDE, ImageMeasurements, measure
from marginface.reporting.html_page import grid

OnProgress = Callable[[str, int, int], None]  # stage, done, all
_IDENTITY_OFFSET = 3.5  # pixels at 112: of 570 aligned identities the worst median was 2.1
_AS_SHOWN = ImageRules(size=SIDE, resize=True, alpha="drop")
_MIN_CROPS = 3  # of an identity, for a median


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
    faces = open_faces(root, format, label_gaps="keep")
    # Opened first: a mistake in them should not come out after an hour.
    embedder = None if checkpoint is None else load_embedder(checkpoint)
    tests = [load_pairs(path, root=pairs_root) for path in pairs or []]
    inspection = _Inspection(Path(root), faces, ImageRules(size=None, alpha=alpha), on_progress)
    inspection.count()
    inspection.measure(image_size)
    inspection.duplicates()
    inspection.template()
    inspection.outliers()
    inspection.sheet()
    if embedder is not None:
        inspection.people(embedder)
    for test in tests:
        inspection.overlap(test, embedder)
    return inspection.findings


class _Inspection:
    """The steps, each adding to `findings`."""

    facts: ImageMeasurements

    def __init__(
        self, root: Path, faces: FaceDataset, rules: ImageRules, on_progress: OnProgress
    ) -> None:
        self.faces, self.rules, self.on_progress = faces, rules, on_progress
        self._prefix = f"{root}/"
        self.findings = Findings(str(root))

    def name(self, index: int) -> str:
        """An image as lines name it."""
        return self.faces.describe(index).replace(self._prefix, "")

    def identity(self, image: int) -> str:
        return self.faces.identity(int(self.faces.labels[image]))

    def fault(self, kind: str, where: str, reason: str) -> None:
        self.findings.faults.append(Finding(kind, where, reason))

    def suspect(self, kind: str, where: str, reason: str) -> None:
        self.findings.suspicions.append(Finding(kind, where, reason))

    def count(self) -> None:
        """How many images of whom; identities and files that are none."""
        counts = np.bincount(self.faces.labels, minlength=self.faces.num_classes)
        self.findings.images_per_identity = counts
        self.findings.counts = {
            "images": len(self.faces),
            "identities": int((counts > 0).sum()),
            "fewest images of an identity": int(counts[counts > 0].min()),
            "median": float(np.median(counts[counts > 0])),
            "most": int(counts.max()),
            "identities with one image": int((counts == 1).sum()),
        }
        for label in np.flatnonzero(counts == 0).tolist():
            self.fault("empty identity", f"label {label}", "no image has this label")
        if isinstance(self.faces, FolderDataset):
            for path in self.faces.ignored:
                if "/" in path:
                    self.fault("no image", path, "not an image by its name, training ignores it")
                else:
                    self.findings.notes.append(f"{path} lies beside the identities and is not read")
            for identity in self.faces.empty:
                self.fault("empty identity", f"{identity}/", "a folder without images")

    def measure(self, image_size: int | None) -> None:
        """Decode everything; damaged images and those of another size are faults."""
        self.facts = measure(
            self.faces,
            self.rules,
            lambda done, total: self.on_progress("reading", done, total),
        )
        for index, reason in sorted(self.facts.faults.items()):
            self.fault("damaged", self.name(index), reason)
        shapes = Counter(map(tuple, self.facts.shape[self.facts.readable].tolist()))
        if not shapes:
            return
        common = shapes.most_common(1)[0][0]
        expected = common if image_size is None else (image_size, image_size)
        whose = "most images have" if image_size is None else "expected"
        self.findings.counts["size"] = f"{expected[1]}x{expected[0]}"
        other = self.facts.readable & (self.facts.shape != expected).any(1)
        for index in np.flatnonzero(other).tolist():
            height, width = self.facts.shape[index]
            self.fault(
                "size",
                self.name(index),
                f"{width}x{height} pixels, {whose} {expected[1]}x{expected[0]}",
            )
        red, _, blue = self.facts.color[self.facts.readable].mean(0)
        if blue > red + 3:
            self.findings.notes.append(
                f"the faces are bluer than red (blue {blue:.0f}, red {red:.0f}): red and blue are "
                "probably swapped"
            )

    def duplicates(self) -> None:
        """The same bytes, or nearly the same picture."""
        facts = self.facts
        same = np.arange(len(self.faces))
        for group in exact_duplicates(facts.sha256, np.asarray(facts.sha256.any(1))):
            same[group] = group[0]
            self._group(group, "duplicate", "the same bytes as")
        representative = facts.readable & (same == np.arange(len(same)))
        for first, second in near_duplicates(facts.phash, representative).tolist():
            # Among millions of faces some hashes are near by chance.
            if likeness(self._picture(first), self._picture(second)) < SAME_PICTURE:
                continue
            self._group([first, second], "near duplicate", "nearly the same picture as")

    def _group(self, group: list[int], kind: str, words: str) -> None:
        persons = {self.identity(index) for index in group}
        if len(persons) == 1:
            for index in group[1:]:
                self.fault(kind, self.name(index), f"{words} {self.name(group[0])}")
            return
        # Nobody knows which label is right, so every image is named.
        for index in group:
            other = next(o for o in group if self.identity(o) != self.identity(index))
            self.fault(
                kind,
                self.name(index),
                f"{words} {self.name(other)}, which is labeled as somebody else",
            )

    def template(self) -> None:
        """Whether the set, its identities and single crops sit on the template."""
        findings, facts = self.findings, self.facts
        usable = int(facts.readable.sum())
        if not usable:
            return
        findings.mean_face = facts.rgb / usable
        fit = findings.fit = fit_template(facts.gray)
        if not fit.is_aligned:
            self.fault(
                "alignment",
                findings.root,
                f"the mean face is off the five-point template: it fits best {fit.scale:g} times "
                f"as large, turned by {fit.turn:g} degrees and shifted by ({fit.right:g}, "
                f"{fit.down:g}) pixels; align the faces with `marginface align`",
            )
        if usable < misalignment.MIN_CROPS:
            findings.notes.append(
                f"single crops were not checked for alignment: {usable} images are too few to "
                f"learn how they lie, {misalignment.MIN_CROPS} are needed"
            )
            return
        indices = np.flatnonzero(facts.readable)
        offsets = misalignment.crop_offsets(self.faces, indices, self.on_progress)
        self._off_template(offsets)

    def _off_template(self, offsets: NDArray[np.float64]) -> None:
        order = np.argsort(self.faces.labels, kind="stable")
        bounds = np.flatnonzero(np.diff(self.faces.labels[order])) + 1
        whole: set[int] = set()
        for images in np.split(order, bounds):
            known = offsets[images][~np.isnan(offsets[images])]
            if len(known) >= _MIN_CROPS and np.median(known) > _IDENTITY_OFFSET:
                whole.add(int(self.faces.labels[images[0]]))
                self.fault(
                    "alignment",
                    self.identity(int(images[0])),
                    f"its {len(known)} crops are not aligned as the others are, by about "
                    f"{np.median(known):.0f} pixels at 112",
                )
        in_whole = np.isin(self.faces.labels, list(whole))
        off = np.flatnonzero(
            (offsets > misalignment.MAX_OFFSET) | (in_whole & (offsets > _IDENTITY_OFFSET))
        )
        for index in off[np.argsort(-offsets[off])].tolist():
            add = self.fault if in_whole[index] else self.suspect
            add(
                "alignment",
                self.name(index),
                f"not aligned as the others are, by about {offsets[index]:.0f} pixels at 112",
            )

    def outliers(self) -> None:
        """The darkest, brightest and most blurred images."""
        readable = np.flatnonzero(self.facts.readable)
        for title, values, highest in (
            ("darkest", self.facts.brightness, False),
            ("brightest", self.facts.brightness, True),
            ("most blurred", self.facts.sharpness, False),
        ):
            order = readable[np.argsort(values[readable])]
            chosen = (order[::-1] if highest else order)[:12]
            if len(chosen):
                self.findings.outliers[title] = [
                    (self.name(int(i)), round(float(values[i]), 2)) for i in chosen
                ]
                self.findings.sheets[f"{title}: from left to right"] = grid(self._pictures(chosen))

    def sheet(self) -> None:
        """Some images at random."""
        readable = np.flatnonzero(self.facts.readable)
        chosen = np.sort(np.random.default_rng(1).permutation(readable)[:48])
        if len(chosen):
            self.findings.sheets["contact sheet: 48 images at random"] = grid(
                self._pictures(chosen)
            )

    def _pictures(self, indices: NDArray[np.int64]) -> list[Pixels]:
        return [self._picture(index) for index in indices.tolist()]

    def _picture(self, index: int) -> Pixels:
        return _AS_SHOWN.decode(self.faces.image_bytes(index))

    def people(self, embedder: Embedder) -> None:
        """Images that look like somebody else, identities that look like one person."""
        readable = np.flatnonzero(self.facts.readable)
        embeddings = embed_readable(self.faces, readable, embedder, self.on_progress)
        known = torch.isfinite(embeddings).all(1)
        images, labels = known.nonzero()[:, 0], torch.from_numpy(self.faces.labels)[known]
        for found in label_suspects(embeddings[known], labels, self.faces.num_classes):
            image = int(images[found.image])
            self.suspect(
                "label",
                self.name(image),
                f"looks more like {self.faces.identity(found.nearest)} (cosine {found.other:.2f}) "
                f"than like {self.identity(image)} ({found.own:.2f})"
                if found.other > found.own
                else f"looks little like {self.identity(image)} (cosine {found.own:.2f})",
            )
        self._centers = identity_centers(embeddings[known], labels, self.faces.num_classes)
        for pair in alike_identities(self._centers):
            self.suspect(
                "identity",
                self.faces.identity(pair.first),
                f"may be the same person as {self.faces.identity(pair.second)} "
                f"(cosine of the centers {pair.cosine:.2f})",
            )

    def overlap(self, tests: PairFile, embedder: Embedder | None) -> None:
        """Images and persons shared with a test set."""
        path = tests.path
        facts = measure(
            tests,
            ImageRules(size=None, alpha="drop"),
            lambda done, total: self.on_progress(f"reading {tests.name}", done, total),
        )
        for image, test in between(self.facts.phash, facts.phash).tolist():
            shown = _AS_SHOWN.decode(tests.image_bytes(test))
            if likeness(self._picture(image), shown) < SAME_PICTURE:
                continue
            self.fault(
                "test image",
                self.name(image),
                f"nearly the same picture as image {test} of {path}; the test set would be trained "
                "on",
            )
        for index, reason in sorted(facts.faults.items()):
            self.findings.notes.append(f"{tests.describe(index)}: {reason}")
        if embedder is None:
            return
        if facts.faults:
            self.findings.notes.append(f"{path}: not embedded, because of the images above")
            return
        tests.resize_to(embedder.image_size)
        embeddings = normalize(embedder.embed(tests))
        seen: set[int] = set()
        for pair in alike_identities(self._centers, embeddings):
            if pair.first not in seen:
                seen.add(pair.first)
                self.suspect(
                    "test person",
                    self.faces.identity(pair.first),
                    f"may be the person in image {pair.second} of {path} "
                    f"(cosine {pair.cosine:.2f})",
                )
