"""IJB-B and IJB-C: templates 1:1 and 1:N, from the published files."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from marginface.data.unlabeled import UnlabeledFaces
from marginface.evaluation.benchmarks.base import (
    BenchmarkResult,
    BenchmarkTask,
    PairDecisions,
    ResultTable,
)
from marginface.evaluation.benchmarks.ijb_files import (
    Media,
    Subjects,
    find_meta,
    needed_meta,
    read_media,
    read_subjects,
    read_template_pairs,
)
from marginface.evaluation.cautions import rate_caution
from marginface.metrics.bootstrap import Estimate, Identities, intervals, pair_weights, people_of
from marginface.metrics.bootstrap_rates import WeightedRates
from marginface.metrics.identification import DEFAULT_RANKS, IdentificationResult, identification
from marginface.metrics.identification_intervals import identification_intervals, with_fnir
from marginface.metrics.linked_people import linked_people
from marginface.metrics.operating_points import operating_points
from marginface.metrics.roc import area_under, equal_error_rate, nearest_tars
from marginface.metrics.scores import ScoredPairs, checked_pairs, sort_scores
from marginface.metrics.templates import aggregate_templates, score_templates, weigh_features
from marginface.metrics.verification import rate_name
from marginface.utils.arguments import Probability, Ranks, Seed, WholeNumber
from marginface.utils.console import tracked
from marginface.utils.errors import InputError, MissingInputError

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_GALLERIES = (
    ("_1N_gallery_G1.csv", "_1N_gallery_G2.csv"),
    ("_1N_gallery_S1.csv", "_1N_gallery_S2.csv"),
)
_DECIDED_AT = 1e-3  # FMR of the threshold at which networks are compared, by their TAR
_MOST_DECISIONS = 200_000


class Files(NamedTuple):
    """What a set holds besides its images."""

    media: Media
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]] | None
    galleries: list[Subjects]
    probes: Subjects | None


class IJBBenchmark:
    """Verification and identification of templates.

    Args:
        root: folder with meta/ and loose_crop/.
        keep_norm: images weigh by the length of their embedding (N1), or all the same (N0).
        detector_score: images weigh by the score of the face detector (D1), or not (D0).
        merged: also search both galleries as one, which is not the protocol; named so.
        fars: rates to report TAR at.
        ranks: to report identification rates at.
        fpirs: rates to report TPIR at.
        bootstrap: replicates for the intervals.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        *,
        root: str,
        keep_norm: bool = True,
        detector_score: bool = True,
        merged: bool = False,
        fars: Sequence[Probability] = IJB_FARS,
        ranks: Ranks = DEFAULT_RANKS,
        fpirs: Annotated[Sequence[Probability], Field(min_length=1)] = (1e-2, 1e-1),
        bootstrap: WholeNumber = 1000,
        seed: Seed = 0,
    ) -> None:
        self.root = Path(root)
        self.keep_norm, self.detector_score, self.merged = keep_norm, detector_score, merged
        self.fars, self.ranks, self.fpirs = tuple(fars), tuple(ranks), tuple(fpirs)
        self.bootstrap, self.seed = bootstrap, seed

    def tasks(self, name: str, image_size: int) -> list[BenchmarkTask]:
        files = read_files(self.root)
        faces = UnlabeledFaces(
            self.root / "loose_crop",
            files.media.images,
            points=files.media.points,
            image_size=image_size,
        )
        return [BenchmarkTask(name, faces, partial(self.evaluate, name, files))]

    def evaluate(self, name: str, files: Files, embeddings: Tensor) -> BenchmarkResult:
        """Results from the embeddings of all images."""
        media = files.media
        score = torch.from_numpy(media.detector_score) if self.detector_score else None
        features, ids = aggregate_templates(
            weigh_features(embeddings, score, self.keep_norm),
            torch.from_numpy(media.template_id),
            torch.from_numpy(media.media_id),
        )
        outcome = BenchmarkResult(
            name, self._protocol(), {}, {"images": len(media.images), "templates": len(ids)}
        )
        if files.pairs is not None:
            self._verify(outcome, files, features, ids)
        if files.probes is not None:
            self._identify(outcome, files, features, ids)
        return outcome

    def _protocol(self) -> list[str]:
        norm = "kept (N1)" if self.keep_norm else "removed first (N0)"
        detector = "multiplied in (D1)" if self.detector_score else "left out (D0)"
        return [
            "images: loose crops aligned by their five points",
            f"templates: feature norm {norm}, detector score {detector}; mean over the images of a "
            "medium, sum over media, normalized",
            "tar@far: the ROC point whose FAR is nearest, not interpolated (insightface's rule)",
            "1:N: each gallery by itself, then the mean of both; probes of subjects that a gallery "
            "lacks tell its FPIR; TPIR counts probes found at rank 1",
            f"intervals: 95 %, {self.bootstrap} bootstrap replicates over people",
        ]

    def _verify(
        self, outcome: BenchmarkResult, files: Files, features: Tensor, ids: Tensor
    ) -> None:
        assert files.pairs is not None
        id1, id2, same = files.pairs
        scores = score_templates(features, ids, torch.from_numpy(id1), torch.from_numpy(id2))
        pairs = sort_scores(scores, torch.from_numpy(same))
        people = template_people(files)
        outcome.metrics |= self._rates(pairs, scores.numpy(), same, people)
        outcome.counts |= {
            "pairs": len(same), "genuine": int(same.sum()), "impostor": int((~same).sum()),
        }  # fmt: skip
        outcome.pairs = pairs
        outcome.cautions += rate_caution("tar@far", self.fars, int((~same).sum()))
        threshold = operating_points(pairs, [_DECIDED_AT])[0].threshold
        content = hashlib.sha256("\n".join(files.media.images).encode(errors="surrogateescape"))
        for column in (files.media.template_id, id1, id2, same):
            content.update(column.tobytes())
        outcome.pairs_sha256 = content.hexdigest()
        # Networks are compared on genuine pairs; the others are for curves, where they are few.
        kept = np.ones_like(same) if len(same) <= _MOST_DECISIONS else same
        cosines = scores.double().numpy()[kept]
        right = (cosines >= threshold) == same[kept]
        one, other = (side[kept] for side in people)
        outcome.decisions = PairDecisions(
            cosines, same[kept], right, one, other, compared=same[kept]
        )

    def _rates(
        self,
        pairs: ScoredPairs,
        scores: NDArray[np.float32],
        same: NDArray[np.bool_],
        people: tuple[Identities, Identities],
    ) -> dict[str, Estimate]:
        tars = nearest_tars(pairs, self.fars)
        values = {f"tar@{rate_name(far)}": tar for far, tar in tars.items()}
        values |= {"auc": area_under(pairs), "eer": equal_error_rate(pairs)}
        rates = WeightedRates(scores, same, self.seed)
        looked_at = rates.pairs()
        first, second = (side[looked_at] for side in people)
        drawn = pair_weights(first, second, self.bootstrap, self.seed)
        return intervals(
            values,
            lambda weights: rates(weights, self.fars),
            tracked(drawn, self.bootstrap, "intervals"),
            dict.fromkeys(values, people_of(*people, same)),
        )

    def _identify(
        self, outcome: BenchmarkResult, files: Files, features: Tensor, ids: Tensor
    ) -> None:
        row = {template: number for number, template in enumerate(ids.tolist())}
        galleries = {f"gallery {n}": gallery for n, gallery in enumerate(files.galleries, start=1)}
        results, estimates = self._search(features, row, galleries, files.probes)
        outcome.metrics |= estimates
        if self.merged:
            columns = zip(*files.galleries, strict=True)
            everything = Subjects(*(np.concatenate(column) for column in columns))
            found, estimates = self._search(
                features, row, {"merged, which is not the protocol": everything}, files.probes
            )
            results |= found
            outcome.metrics |= {f"merged/{name}": value for name, value in estimates.items()}
        names = list(dict.fromkeys(name for r in results.values() for name in r.metrics()))
        rows = [
            (title, r.mated, r.non_mated, *(_percent(r.metrics().get(name)) for name in names))
            for title, r in results.items()
        ]
        headings = ("searched in", "mated", "non-mated", *names)
        outcome.tables.append(ResultTable("1:N by gallery (percent)", headings, rows))

    def _search(
        self,
        features: Tensor,
        row: dict[int, int],
        galleries: dict[str, Subjects],
        probes: Subjects | None,
    ) -> tuple[dict[str, IdentificationResult], dict[str, Estimate]]:
        """Results by gallery, and estimates of their means."""
        assert probes is not None
        results = {}
        for title, gallery in galleries.items():
            # A gallery that holds everybody searched for is a closed set.
            is_open = not np.isin(probes.subject_id, gallery.subject_id).all()
            try:
                results[title] = identification(
                    features[_rows(gallery, row)],
                    torch.from_numpy(gallery.subject_id),
                    features[_rows(probes, row)],
                    torch.from_numpy(probes.subject_id),
                    self.ranks,
                    self.fpirs if is_open else (),
                )
            except InputError as error:
                raise InputError(f"{self.root}, {title}: {error}") from error
        subjects = probes.subject_id
        estimates = identification_intervals(
            list(results.values()), subjects, self.bootstrap, self.seed
        )
        return results, with_fnir(estimates)


def read_files(root: Path) -> Files:
    """Everything in the meta folder of a set.

    Raises:
        MissingInputError: the list of images or of points is missing, or both protocols are.
        InputError: a file that holds something else, or a template without images.
    """
    media = read_media(root)
    path = find_meta(root, "_template_pair_label.txt")
    pairs = None if path is None else read_template_pairs(path)
    galleries, probes = [], None
    suffixes = next((s for s in _GALLERIES if any(find_meta(root, suffix) for suffix in s)), None)
    if suffixes is not None:
        galleries = [read_subjects(needed_meta(root, suffix)) for suffix in suffixes]
        probes = read_subjects(needed_meta(root, "_1N_probe_mixed.csv"))
    if pairs is None and probes is None:
        raise MissingInputError(
            f"{root / 'meta'} has neither *_template_pair_label.txt (1:1) nor *_1N_gallery_G1.csv, "
            "*_1N_gallery_G2.csv and *_1N_probe_mixed.csv (1:N)"
        )
    known = np.unique(media.template_id)
    if pairs is not None:
        checked_pairs(torch.zeros(len(pairs[2])), torch.from_numpy(pairs[2]))
    for gallery in galleries:
        if probes is not None and not np.isin(probes.subject_id, gallery.subject_id).any():
            raise InputError(f"{root}: none of the probes shows anybody in one of the galleries")
    for ids in [] if pairs is None else pairs[:2]:
        missing = ~np.isin(ids, known)
        if missing.any():
            pair = int(missing.argmax())
            raise InputError(f"{path}: pair {pair} names template {ids[pair]}, which has no images")
    tables = {f"gallery {n}": table for n, table in enumerate(galleries, start=1)}
    for title, table in (tables | ({} if probes is None else {"the probes": probes})).items():
        missing = ~np.isin(table.template_id, known)
        if missing.any():
            raise InputError(
                f"{root}, {title}: template {table.template_id[missing][0]} has no images "
                f"({int(missing.sum())} such templates); check *_face_tid_mid.txt against the 1:N "
                "files"
            )
    return Files(media, pairs, galleries, probes)


def template_people(files: Files) -> tuple[Identities, Identities]:
    """Person of both templates of each pair: from the 1:N files, else whom genuine pairs link."""
    assert files.pairs is not None
    id1, id2, same = files.pairs
    lists = [*files.galleries, *([files.probes] if files.probes is not None else [])]
    known = {t: s for table in lists for t, s in zip(*(c.tolist() for c in table), strict=True)}
    templates = np.unique(np.concatenate([id1, id2]))
    if all(template in known for template in templates.tolist()):
        subject = np.array([known[template] for template in templates.tolist()])
        return subject[np.searchsorted(templates, id1)], subject[np.searchsorted(templates, id2)]
    return linked_people(id1, id2, same)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _rows(table: Subjects, row: dict[int, int]) -> Tensor:
    return torch.tensor([row[template] for template in table.template_id.tolist()])
