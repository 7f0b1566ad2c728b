"""One evaluation: a network on benchmarks, to a page and result.json."""

from pathlib import Path
from typing import Any

from torch import Tensor

from marginface.config.instantiate import build
from marginface.data.preprocessing import MIDDLE
from marginface.evaluation.acquisition import add_acquisition
from marginface.evaluation.benchmarks import BenchmarkResult, BenchmarkTask
from marginface.evaluation.cautions import embedding_cautions
from marginface.evaluation.config import evaluation_problems
from marginface.evaluation.report import RESULT, Evaluation, print_results
from marginface.inference.description import NetworkInput
from marginface.inference.embedder import (
    Embedder,
    check_devices,
    check_execution,
    model_embedder,
    single_image_latency,
)
from marginface.inference.embedding_cache import EmbeddingCache
from marginface.inference.model_file import ModelFile
from marginface.inference.open_model import open_model
from marginface.utils.console import progress_bar, rank_zero_print, rank_zero_warn
from marginface.utils.errors import InputError, raise_problems
from marginface.utils.hardware import machine


def evaluate(config: dict[str, Any]) -> dict[str, float]:
    """Carry out an evaluation; returns what result.json holds.

    Args:
        config: resolved configuration, see configs/evaluate.yaml.

    Raises:
        InputError: anything the user can fix.
    """
    raise_problems(evaluation_problems(config))
    folder = Path(config["paths"]["run_dir"])
    if (folder / RESULT).exists():
        raise InputError(
            f"{folder} holds results already; choose another hydra.run.dir, nothing is overwritten"
        )
    devices = check_devices(config["devices"])
    model = open_model(
        config["run"] or config["checkpoint"],
        config["backbone"],
        config["color"],
        checkpoint=config["checkpoint"] if config["run"] else "best",
        given=config["input"],
    )
    check_execution(model, flip=config["flip"], precision=config["precision"])
    gallery = _gallery_model(config, model)
    tasks = _tasks(config["benchmark"], model.input.aligned_size)
    embed = _Embedding(model, devices, config)
    embed_gallery = _Embedding(gallery, devices, config) if gallery is not None else None
    if gallery is not None:
        _check_pairs(tasks)
    results: list[BenchmarkResult] = []
    images = [task.faces.content_hash() for task in tasks]  # all there, before hours of work
    for task in tasks:
        _warn(task.name, task.cautions)
    for task, content in zip(tasks, images, strict=True):
        embeddings = embed(task, content)
        try:
            found = embedding_cautions(embeddings)
            if embed_gallery is None:
                result = task.evaluate(embeddings)
            else:
                result = _across(task, embeddings, embed_gallery(task, content))
        except InputError as error:
            raise InputError(f"{task.name}: {error}") from error
        found += result.cautions
        add_acquisition(result, task.faces)
        _warn(task.name, found)
        result.cautions = task.cautions + found
        results.append(result)
    evaluation = Evaluation(
        {
            "checkpoint": str(model.path),
            "weights_sha256": embed.weights,
            "digest": model.description.digest,
            "network": model.name,
            "image_size": model.image_size,
            "color": model.color,
            **({"recognized": model.recognized} if model.recognized else {}),
            **({"gallery_checkpoint": str(gallery.path)} if gallery is not None else {}),
            "normalization": _normalization(model.input),
            "flip": "embedding of the mirror image added" if config["flip"] else "none",
            "precision": "int8" if model.description.precision == "int8" else config["precision"],
            **embed.costs(),
        },
        results,
    )
    faces = {task.name: task.faces for task in tasks} if config["thumbnails"] else {}
    numbers = evaluation.write(folder, config["fmrs"], faces)
    evaluation.append_to(f"{config['paths']['log_dir']}/evaluations/all.csv", folder)
    print_results(evaluation)
    rank_zero_print(f"report {folder}/report.html")
    return numbers


def _gallery_model(config: dict[str, Any], probes: ModelFile) -> ModelFile | None:
    """The network that the other side of each pair is embedded with; None for the same."""
    if config.get("gallery_checkpoint") is None:
        return None
    gallery = open_model(config["gallery_checkpoint"])
    check_execution(gallery, flip=config["flip"], precision=config["precision"])
    if gallery.input.aligned_size != probes.input.aligned_size:
        raise InputError(
            f"checkpoint={probes.path} takes images of {probes.input.aligned_size} pixels and "
            f"gallery_checkpoint={gallery.path} those of {gallery.input.aligned_size}"
        )
    return gallery


def _check_pairs(tasks: list[BenchmarkTask]) -> None:
    others = [task.name for task in tasks if task.evaluate_across is None]
    if others:
        raise InputError(
            f"gallery_checkpoint compares the two sides of pairs; {', '.join(others)} has none"
        )


def _across(task: BenchmarkTask, probes: Tensor, gallery: Tensor) -> BenchmarkResult:
    """New probes against an old gallery."""
    if probes.shape[1] != gallery.shape[1]:
        raise InputError(
            f"embeddings of {probes.shape[1]} numbers cannot be compared with those of "
            f"{gallery.shape[1]}, which gallery_checkpoint gives"
        )
    assert task.evaluate_across is not None
    result = task.evaluate_across(probes, gallery)
    result.protocol.append(
        "ACROSS NETWORKS: the first image of each pair by checkpoint, the second by "
        "gallery_checkpoint"
    )
    return result


_USUAL = "(x/255 - 0.5) / 0.5"


def _normalization(taken: NetworkInput) -> str:
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (taken.mean, taken.std))
    words = _USUAL if taken.mean == taken.std == MIDDLE else f"(x - ({mean})) / ({std})"
    if taken.has_own_template:
        words += ", warped onto the network's own template"
    return words


def _warn(name: str, cautions: list[str]) -> None:
    for caution in cautions:
        rank_zero_warn(f"{name}: {caution}")


def _tasks(benchmarks: dict[str, Any], image_size: int) -> list[BenchmarkTask]:
    tasks: list[BenchmarkTask] = []
    for name, node in benchmarks.items():
        tasks += build(node).tasks(name, image_size)
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two benchmarks are called {twice[0]}; rename one of the files")
    return tasks


class _Embedding:
    """Embeds tasks; the network is built when the first embedding is not in the cache."""

    def __init__(self, model: ModelFile, devices: list[str], config: dict[str, Any]) -> None:
        self.model, self.devices, self.config = model, devices, config
        folder = f"{config['paths']['cache_dir']}/embeddings" if config["cache"] else None
        self.cache = EmbeddingCache(folder)
        self.weights = model.fingerprint()
        self.embedder: Embedder | None = None
        self._width = 0

    def costs(self) -> dict[str, Any]:
        """Latency of one image and size of a template, on this machine."""
        latency: dict[str, Any] = {"latency": "not measured: all embeddings came from the cache"}
        if self.embedder is not None:
            latency = single_image_latency(self.embedder, self.model.input.aligned_size)
        found = machine()
        return latency | {
            "bytes_per_template": 4 * self._width,  # float32
            "machine": f"{found['processor']}, {found['processors']} processors"
            + "".join(f", {gpu}" for gpu in found["gpus"]),
        }

    def __call__(self, task: BenchmarkTask, images: str) -> Any:
        facts = {
            "weights": self.weights,
            "images": images,
            "network": self.model.settings,
            "image_size": self.model.image_size,
            "color": self.model.color,
            "flip": self.config["flip"],
            "precision": self.config["precision"],
        }
        if _normalization(self.model.input) != _USUAL:
            facts["input"] = self.model.input.model_dump(mode="json")
        if task.faces.may_skip:  # rows of faulty images are NaN
            facts["faulty"] = "skip"
        embeddings, was_there = self.cache.get(facts, lambda: self._compute(task))
        self._width = embeddings.shape[1]
        source = "from the cache" if was_there else f"on {', '.join(self.devices)}"
        rank_zero_print(f"{task.name}: {len(task.faces)} images embedded {source}")
        return embeddings

    def _compute(self, task: BenchmarkTask) -> Any:
        if self.embedder is None:
            self.embedder = model_embedder(
                self.model,
                flip=self.config["flip"],
                devices=self.devices,
                precision=self.config["precision"],
            )
        with progress_bar() as bar:
            shown = bar.add_task(task.name, total=len(task.faces))
            return self.embedder.embed(
                task.faces,
                batch_size=self.config["batch_size"],
                num_workers=self.config["num_workers"],
                on_progress=lambda done, total: bar.update(shown, completed=done),
            )
