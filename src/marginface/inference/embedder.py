"""Images to embeddings with a trained network, preprocessed as in its training."""

import copy
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from marginface.data.alignment.template import align, standard_template
from marginface.data.image_dataset import ImageDataset
from marginface.data.loader import make_loader
from marginface.data.preprocessing import MIDDLE, Color, embed_with_flip, normalize_images
from marginface.inference.description import NetworkInput
from marginface.inference.model_file import ModelFile
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # as the trainer calls them
_PASSES, _SECONDS_OF_LATENCY = 50, 3.0
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Embedder:
    """A network in evaluation mode, on one device or on several.

    Args:
        network: (B, 3, S, S) to (B, D).
        image_size: S.
        color: channel order it was trained in.
        flip: add the embedding of the mirror image (the flip test).
        devices: of torch, by name; all GPUs, or the CPU without any, when not given.
        precision: the mixed ones compute convolutions in 16 bits; embeddings are float32 always.
        mean, std: of each channel, see `normalize_images`.
        warp: of a network with a template of its own, onto which images come from the standard one.
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        color: Color,
        *,
        flip: bool = True,
        devices: Sequence[str] | None = None,
        precision: Precision = "32-true",
        mean: Sequence[float] = MIDDLE,
        std: Sequence[float] = MIDDLE,
        warp: NetworkInput | None = None,
    ) -> None:
        self.image_size, self.color, self.flip, self.precision = image_size, color, flip, precision
        self.mean, self.std, self.warp = tuple(mean), tuple(std), warp
        # A graph that takes bytes does all of it itself, the mirror image too.
        self.takes_bytes = bool(getattr(network, "takes_bytes", False))
        self.devices = [torch.device(d) for d in devices or available_devices()]
        network = network.eval().to(memory_format=torch.channels_last)
        self.networks = [
            (network if place == 0 else copy.deepcopy(network)).to(device)
            for place, device in enumerate(self.devices)
        ]

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) RGB to float32 (B, D), not normalized."""
        return self._embed(images, 0)

    @torch.inference_mode()
    def _embed(self, images: Tensor, place: int) -> Tensor:
        device, network = self.devices[place], self.networks[place]
        if self.warp is not None:
            images = _onto_template(images, self.warp)
        if self.takes_bytes:
            return network(images)
        x = normalize_images(images.to(device, non_blocking=True), self.color, self.mean, self.std)
        x = x.contiguous(memory_format=torch.channels_last)
        kind = _AUTOCAST.get(self.precision)
        with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            return embed_with_flip(network, x) if self.flip else network(x).float()

    def embed(
        self,
        dataset: ImageDataset,
        *,
        batch_size: int = 128,
        num_workers: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """float32 (N, D) of a whole dataset, not normalized; NaN for images `faulty=skip` leaves
        out.

        Args:
            dataset: its images must have the size of this network.
            batch_size: images per forward pass and device.
            num_workers: decoding processes.
            on_progress: called with the images done and all of them.

        Raises:
            InputError: an image that cannot be read.
        """
        table: Tensor | None = None
        under_way: deque[tuple[Tensor, Tensor]] = deque()

        def finish() -> None:
            nonlocal table
            indices, embeddings = under_way.popleft()
            rows = embeddings.cpu()  # waits for its device
            if table is None:
                table = torch.full((len(dataset), rows.shape[1]), torch.nan)
            table[indices] = rows

        done = 0
        # A block of images may be missing.
        before, dataset.needs_an_image = dataset.needs_an_image, False
        try:
            loader = make_loader(dataset, batch_size=batch_size, num_workers=num_workers)
            for number, (images, _, indices) in enumerate(loader):
                if not len(indices):
                    continue
                # GPUs compute asynchronously; a batch is fetched when its device is wanted again.
                under_way.append((indices, self._embed(images, number % len(self.devices))))
                if len(under_way) > len(self.devices):
                    finish()
                done += len(indices)
                on_progress(done, len(dataset))
            while under_way:
                finish()
        finally:
            dataset.needs_an_image = before
        if table is None:
            raise InputError(f"{dataset.where}: not one of its {len(dataset)} images can be read")
        return table


def _onto_template(images: Tensor, taken: NetworkInput) -> Tensor:
    """uint8 (B, 3, A, A) on the standard template to (B, 3, S, S) on that of the network."""
    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
    points = standard_template(pixels.shape[1])
    warped = [align(rgb, points, taken.size, taken.points, taken.border) for rgb in pixels]
    return torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2)


def single_image_latency(embedder: Embedder, image_size: int) -> dict[str, float]:
    """Milliseconds from the bytes of one image to its embedding: median and 95 % quantile.

    Up to 50 passes of a batch of one, at most three seconds, after three to warm up.

    Args:
        embedder: its first device counts.
        image_size: S that it takes.
    """
    image = torch.randint(0, 256, (1, 3, image_size, image_size), dtype=torch.uint8)
    times: list[float] = []
    end = time.perf_counter() + _SECONDS_OF_LATENCY
    while len(times) < 3 + _PASSES and (len(times) < 5 or time.perf_counter() < end):
        start = time.perf_counter()
        embedder(image).cpu()  # waits for the device
        times.append(1000 * (time.perf_counter() - start))
    p50, p95 = torch.tensor(times[3:]).quantile(torch.tensor([0.5, 0.95])).tolist()
    return {"latency_ms_p50": round(p50, 3), "latency_ms_p95": round(p95, 3)}


def available_devices() -> list[str]:
    """All GPUs, or the CPU when there is none."""
    return [f"cuda:{n}" for n in range(torch.cuda.device_count())] or ["cpu"]


def check_devices(devices: str | Sequence[str]) -> list[str]:
    """Devices by name; "auto" is all there are.

    Raises:
        InputError: one that is not there.
    """
    if devices == "auto":
        return available_devices()
    names = [devices] if isinstance(devices, str) else list(devices)
    if not names:
        raise InputError("devices names none; auto takes all there are")
    known = [*available_devices(), "cpu", "cuda", "mps"]
    for name in names:
        usable = name in known and (name != "cuda" or torch.cuda.is_available())
        if not usable or (name == "mps" and not torch.backends.mps.is_available()):
            raise InputError(
                f"devices: {name!r} is not there; auto takes all of: "
                f"{', '.join(available_devices())}"
            )
    return names


def load_embedder(path: str | Path) -> Embedder:
    """The network of a run folder or of one of our checkpoints.

    Raises:
        MissingInputError: no such file.
        InputError: a file that does not say which network it holds.
    """
    model = open_model(path)
    return model_embedder(model, flip=model.description.flip)


def check_execution(model: ModelFile, *, flip: bool, precision: Precision) -> None:
    """InputError for a precision or flip that the file does not leave open."""
    if model.path.suffix == ".onnx" and precision != "32-true":
        raise InputError("an ONNX graph has its own precision; leave precision=32-true")
    if model.description.layout == "uint8" and flip != model.description.flip:
        does = "adds the mirror image" if model.description.flip else "adds no mirror image"
        raise InputError(f"{model.path} {does} itself; set flip={str(not flip).lower()}")


def model_embedder(
    model: ModelFile,
    *,
    flip: bool,
    devices: Sequence[str] | None = None,
    precision: Precision = "32-true",
    warp: bool = True,
) -> Embedder:
    """The network of a file.

    Args:
        warp: images are on the standard template, of `model.input.aligned_size`, and come from
            there onto the network's own; else they are on that already.

    Raises:
        InputError: see `check_execution`.
    """
    check_execution(model, flip=flip, precision=precision)
    taken = model.input
    return Embedder(
        model.build(),
        taken.size,
        model.color,
        flip=flip,
        devices=devices,
        precision=precision,
        mean=taken.mean,
        std=taken.std,
        warp=taken if warp and taken.has_own_template else None,
    )
