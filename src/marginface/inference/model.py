"""A network to use: photographs and aligned faces to embeddings, and whether two are one person."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from marginface.data.alignment.faces import FaceFinder, Which
from marginface.data.preprocessing import Color
from marginface.inference.description import Description
from marginface.inference.embedder import Embedder, Precision, check_devices, model_embedder
from marginface.inference.evaluation_folder import read_evaluation
from marginface.inference.model_file import ModelFile, weights_digest
from marginface.inference.open_model import open_model
from marginface.inference.photo_options import PhotoOptions
from marginface.inference.photographs import (
    Faces,
    Photo,
    embed_photos,
    embed_pixels,
    join_faces_of,
)
from marginface.inference.pixels import check_aligned
from marginface.metrics.thresholds import Threshold, lowest_supported, threshold_for
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

Runtime = Literal["auto", "torch", "onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("auto", "torch", "onnxruntime", "openvino")
BATCH = 64


@dataclass(frozen=True)
class Verification:
    """Whether two faces are one person.

    Attributes:
        same: whether the cosine reaches the threshold.
        cosine: of the two embeddings.
        threshold: that it is compared with.
        fmr: false match rate the threshold is for; None where the threshold was given.
        low, high: 95 % interval of that rate.
        set: images it was measured on.
        false_matches, impostors: of these.
        caution: why the threshold is uncertain, in words.
    """

    same: bool
    cosine: float
    threshold: float
    fmr: float | None = None
    low: float | None = None
    high: float | None = None
    set: str | None = None
    false_matches: int | None = None
    impostors: int | None = None
    caution: str | None = None

    def __str__(self) -> str:
        word = "same" if self.same else "different"
        line = f"{word}: cosine {self.cosine:.3f}, threshold {self.threshold:.3f}"
        if self.fmr is None:
            return f"{line} (given)"
        return (
            f"{line} (FMR {rate_name(self.fmr)}, 95 % {self.low:.1e} to {self.high:.1e}, on "
            f"{self.set}, {self.false_matches} false matches)"
        )


class Model:
    """A network with everything its file says of it. Made by `marginface.load`.

    Attributes:
        description: what the file says.
        image_size: S, side of the aligned faces it takes, in pixels.
        color: channel order it was trained in; arrays are RGB whatever it is.
        flip: whether the embedding of the mirror image is added.
        digest: SHA-256 of the weights, which other files with them share.
        photos: how faces are found in photographs.
    """

    def __init__(
        self, description: Description, embedder: Embedder, digest: str, photos: PhotoOptions
    ) -> None:
        self.description, self.digest, self.photos = description, digest, photos
        self._embedder = embedder
        self._finders: dict[tuple[PhotoOptions, Which], FaceFinder] = {}
        self._width: int | None = None

    @property
    def image_size(self) -> int:
        return self.description.input.size

    @property
    def color(self) -> Color:
        return self.description.input.color

    @property
    def flip(self) -> bool:
        return self.description.flip

    @property
    def embedding_size(self) -> int:
        """D."""
        if self._width is None:
            black = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
            self._width = self._embedder(_channels_first(black)).shape[1]
        return self._width

    def embed_aligned(self, images: Any, batch_size: int = BATCH) -> NDArray[np.float32]:
        """Aligned faces, uint8 RGB (N, S, S, 3), to float32 (N, D) of unit length.

        Raises:
            InputError: other arrays, see `pixels.check_aligned`.
        """
        checked = check_aligned(images, self.image_size)
        return np.concatenate([part for part, _ in self._parts(checked, batch_size)])

    def norms_aligned(
        self, images: Any, batch_size: int = BATCH
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`embed_aligned`, and the lengths embeddings had; NaN where a graph hides them."""
        checked = check_aligned(images, self.image_size)
        parts = list(self._parts(checked, batch_size))
        units, norms = zip(*parts, strict=True)
        return np.concatenate(units), np.concatenate(norms)

    def embed(
        self,
        photos: Photo | Iterable[Photo],
        *,
        faulty: Literal["stop", "keep"] = "stop",
        batch_size: int = BATCH,
        on_photo: Callable[[int], None] = lambda done: None,
        usual: Which = "all",
        **options: Any,
    ) -> Faces:
        """Faces found in photographs, aligned and embedded; a row each.

        Args:
            photos: paths, or uint8 RGB arrays (H, W, 3); or one of them.
            faulty: a photograph without a usable face is an error, or keeps a row that says why.
            batch_size: faces that are embedded at once.
            on_photo: called with the number of photographs done.
            usual: which face of several, unless options say so: all of them, a row each.
            options: other `PhotoOptions` than the model's, for this call.

        Raises:
            InputError: no photographs, an array that is no photograph, or a faulty photograph.
        """
        if isinstance(photos, str | Path) or hasattr(photos, "dtype"):
            photos = [photos]  # type: ignore[list-item]  # one of them
        several: list[Photo] = list(photos)
        names = [str(photo) for photo in several if isinstance(photo, str | Path)]
        found = list(
            embed_photos(
                several,
                self.finder(names, usual, **options),
                self._embedder,
                batch_size=batch_size,
                on_photo=on_photo,
            )
        )
        if not found:
            raise InputError("no photographs were given")
        faces = join_faces_of(found)
        if faulty == "stop" and not faces.found.all():
            row = int((~faces.found).argmax())
            raise InputError(f"{faces.photo[row]}: {faces.status[row]}")
        return faces

    def verify(
        self,
        first: Photo,
        second: Photo,
        *,
        fmr: float = 1e-3,
        threshold: float | None = None,
        **options: Any,
    ) -> Verification:
        """Whether two photographs show one person.

        Args:
            first, second: paths, or uint8 RGB arrays (H, W, 3).
            fmr: false match rate in (0, 1) whose threshold is taken.
            threshold: a cosine to take instead.
            options: other `PhotoOptions` than the model's.

        Raises:
            InputError: no face, or several; a model without thresholds.
        """
        limit = self.limit(fmr, threshold)
        one, other = (
            self.embed([p], usual="only", **options).embedding[0] for p in (first, second)
        )
        return replace(limit, same=(c := float(one @ other)) >= limit.threshold, cosine=c)

    def limit(self, fmr: float = 1e-3, threshold: float | None = None) -> Verification:
        """A `Verification` without faces: the threshold and what is known of it."""
        if threshold is not None:
            if not -1 <= threshold <= 1:
                raise InputError(f"a threshold is a cosine, -1 to 1, got {threshold}")
            return Verification(False, float("nan"), threshold)
        found = self.threshold(fmr)
        return Verification(
            False, float("nan"), found.cosine, fmr, found.fmr_low, found.fmr_high, found.set,
            found.false_matches, found.impostors, self.caution(found),
        )  # fmt: skip

    def threshold(self, fmr: float = 1e-3) -> Threshold:
        """The threshold for a false match rate of two photographs.

        Raises:
            InputError: no thresholds, or none of embeddings like these; with what to do.
        """
        int8 = self.description.precision == "int8"
        try:
            return threshold_for(self.description.thresholds, fmr, flip=self.flip, int8=int8)
        except InputError as error:
            raise InputError(
                f"{error}. Evaluate the model (python evaluate.py checkpoint=... or marginface "
                "evaluate), give the folder with --evaluation (evaluation= in Python); or a cosine "
                "of your own with --threshold"
            ) from error

    def caution(self, found: Threshold) -> str | None:
        """A warning for a rate that too few impostor pairs tell."""
        if found.supported:
            return None
        lowest = lowest_supported(self.description.thresholds, found)
        least = "none" if lowest is None else f"{rate_name(lowest)} and above"
        return (
            f"{found.set} has {found.impostors:,} impostor pairs, too few to know FMR "
            f"{rate_name(found.fmr)} (rule of 30); supported there: {least}"
        )

    def finder(
        self, photos: Sequence[str] = (), usual: Which = "all", **options: Any
    ) -> FaceFinder:
        """What finds faces for this model.

        Args:
            photos: paths, for a landmark file.
            usual: which face of several, unless options say so.
            options: other `PhotoOptions` than the model's.
        """
        wanted = replace(self.photos, **_checked(options))
        if wanted.landmarks is not None:
            return wanted.finder(self.description.input, photos, usual)
        key = wanted, usual
        if key not in self._finders:
            self._finders[key] = wanted.finder(self.description.input, usual=usual)
        return self._finders[key]

    def embed_stream(self, photos: Iterable[Photo], finder: FaceFinder, **more: Any) -> Any:
        """`embed_photos` with this network."""
        return embed_photos(photos, finder, self._embedder, **more)

    def _parts(self, images: NDArray[np.uint8], batch_size: int) -> Any:
        for at in range(0, len(images), batch_size):
            yield embed_pixels(images[at : at + batch_size], self._embedder)


def load(
    path: str | Path,
    *,
    device: str = "auto",
    runtime: Runtime = "auto",
    detector: str | Callable[..., Any] | None = None,
    checkpoint: str = "best",
    flip: bool | None = None,
    precision: Precision = "32-true",
    input: Mapping[str, Any] | None = None,
    backbone: dict[str, Any] | None = None,
    evaluation: str | Path | None = None,
    plugins: Sequence[str] = (),
    face: Which | None = None,
    **photos: Any,
) -> Model:
    """Open a network to use it.

    Args:
        path: run folder, .ckpt, .pth, .safetensors, .onnx, shared folder, or
            "hf:owner/name@revision".
        device: of torch; "auto" is the first GPU, else the CPU.
        runtime: "torch", "onnxruntime" or "openvino"; "auto" is what the file is for.
        detector: see `PhotoOptions`; YuNet when not given.
        checkpoint: of a run folder, "best" by validation or "last".
        flip: add the mirror image; as the file says when not given.
        precision: "32-true", "bf16-mixed" or "16-mixed", for torch.
        input: fields of `NetworkInput` (color, mean, std, size, template, border) for files that do
            not state them.
        backbone: configuration of the network in a file of bare weights.
        evaluation: folder of an evaluation of this network, whose thresholds are taken.
        plugins: modules to import first, which define the network.
        face: which face of a photograph with several; unless it is given `embed` and searches take
            all of them, and `verify` and enrolling refuse more than one.
        photos: further `PhotoOptions`: yunet, detector_size, landmarks, min_face, max_misfit.

    Raises:
        MissingInputError: nothing there.
        InputError: a file that is no network, or options that do not fit it.
    """
    from marginface.inference.runtimes import for_runtime

    chosen = _checked({"face": face, **photos})
    if detector is not None:
        chosen["detector"] = detector
    file = open_source(path, checkpoint=checkpoint, input=input, backbone=backbone, plugins=plugins)
    description = file.description
    if evaluation is not None:
        thresholds, min_norm = read_evaluation(Path(evaluation), file)
        description = description.model_copy(
            update={"thresholds": thresholds, "min_norm": min_norm}
        )
    file = for_runtime(file, runtime)
    embeds_flip = file.description.flip if flip is None else flip
    devices = check_devices(device)[:1]
    # Photographs are aligned to the network's template, whatever it is.
    embedder = model_embedder(
        file, flip=embeds_flip, devices=devices, precision=precision, warp=False
    )
    digest = description.digest or _digest(file, embedder)
    return Model(
        description.model_copy(update={"flip": embeds_flip, "digest": digest}),
        embedder,
        digest,
        PhotoOptions(**chosen),
    )


def open_source(
    path: str | Path,
    *,
    checkpoint: str = "best",
    input: Mapping[str, Any] | None = None,
    backbone: dict[str, Any] | None = None,
    plugins: Sequence[str] = (),
) -> ModelFile:
    """The file of a network, fetched first where it is "hf:owner/name@revision"."""
    if plugins:
        from marginface.utils.plugins import load_plugins

        load_plugins(plugins)
    if str(path).startswith("hf:"):
        from marginface.inference.hub import pull

        path = pull(str(path))
    return open_model(path, backbone, checkpoint=checkpoint, given=input)


def _digest(file: ModelFile, embedder: Embedder) -> str:
    is_graph = file.path.suffix == ".onnx"
    return file.digest() if is_graph else weights_digest(embedder.networks[0])


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(options.keys() - PhotoOptions.__dataclass_fields__.keys())
    if unknown:
        known = ", ".join(PhotoOptions.__dataclass_fields__)
        raise InputError(f"unknown option {unknown[0]!r} of photographs. Known: {known}")
    for name in ("yunet", "landmarks"):
        if options.get(name) is not None:
            options[name] = Path(options[name])
    return options


def _channels_first(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)
