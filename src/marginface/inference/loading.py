"""`marginface.load`: a network to use, from any file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marginface.data.alignment.faces import Which
from marginface.inference.description import DetectorFacts
from marginface.inference.embedder import Precision, check_devices, model_embedder
from marginface.inference.evaluation_folder import read_evaluation
from marginface.inference.model import Model, checked_options
from marginface.inference.model_file import ModelFile
from marginface.inference.open_model import open_model
from marginface.inference.photo_options import DETECTORS, PhotoOptions
from marginface.inference.runtimes import Runtime, for_runtime


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
    chosen = checked_options({"face": face, **photos})
    file = open_source(path, checkpoint=checkpoint, input=input, backbone=backbone, plugins=plugins)
    description = file.description
    if evaluation is not None:
        description = description.model_copy(update=read_evaluation(Path(evaluation), file))
    stated = description.detector
    chosen = (
        _stated_detector(stated) | chosen | ({} if detector is None else {"detector": detector})
    )
    file = for_runtime(file, runtime)
    embeds_flip = file.description.flip if flip is None else flip
    devices = check_devices(device)[:1]
    # Photographs are aligned to the network's template, whatever it is.
    embedder = model_embedder(
        file, flip=embeds_flip, devices=devices, precision=precision, warp=False
    )
    digest = file.digest(embedder.networks[0])
    now = {"flip": embeds_flip, "digest": digest}
    if description.min_norm_flip != embeds_flip:
        now["min_norm"] = None  # norms of one image are not those of two added
    return Model(
        description.model_copy(update=now),
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


def _stated_detector(stated: DetectorFacts) -> dict[str, Any]:
    """The detector a file was evaluated with, where that is one that is known here."""
    found: dict[str, Any] = {"detector": stated.name} if stated.name in DETECTORS else {}
    return found | ({} if stated.size is None else {"detector_size": stated.size})
