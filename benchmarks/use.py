"""Use of a trained network against its peers: search, galleries, embedding, cold start.

    python benchmarks/use.py MODEL.onnx ALIGNED PHOTOS [--out benchmarks/results/use.json]

MODEL.onnx is a float graph of 112 pixels, ALIGNED a folder of aligned faces, PHOTOS one of
photographs. Needs MARGINFACE_YUNET; `pip install faiss-cpu` for the search's peer. Every row is a
median of several rounds in which both sides take turns, and its ratio is taken within each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from hardware import hardware

import marginface
from marginface.data.alignment.detectors import YuNet, yunet_file
from marginface.data.alignment.template import align
from marginface.data.image_files import find_photos
from marginface.inference.gallery_file import create_gallery_file, open_gallery_file
from marginface.inference.gallery_memory import GalleryMemory
from marginface.inference.model import Model
from marginface.metrics.identification import search

STATED = {"color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}
TEMPLATES, WIDTH = 200_000, 512


def turns(
    ours: Callable[[], Any], peer: Callable[[], Any], rounds: int
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of ours / peer within a round."""
    found = []
    for _ in range(rounds):
        pair = []
        for side in (ours, peer):
            start = time.perf_counter()
            side()
            pair.append(time.perf_counter() - start)
        found.append(pair)
    one, other = (statistics.median(column) for column in zip(*found, strict=True))
    return one, other, statistics.median(a / b for a, b in found)


def searching() -> list[dict[str, Any]]:
    """Exact search in 200,000 templates, one thread, against faiss Flat."""
    import faiss

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((TEMPLATES, WIDTH), np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(table)
    gallery = torch.from_numpy(table)
    rows = []
    for probes in (1, 100):
        wanted = table[:probes] + 0.01
        ours, peer, ratio = turns(
            lambda w=wanted: search(torch.from_numpy(w), gallery, 5),
            lambda w=wanted: index.search(w, 5),
            5,
        )
        row = {"what": f"search {probes} in {TEMPLATES}", "seconds": ours}
        rows.append(row | {"peer": "faiss Flat", "peer_seconds": peer, "ratio": ratio})
    return rows


def galleries() -> list[dict[str, Any]]:
    """Open a gallery of 200,000 people, its bytes a template, and removing a person."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder, "a.gallery"), Path(folder, "a.npy")
        file = create_gallery_file(path, {"digest": "x"})
        table = np.empty((TEMPLATES, WIDTH), np.float16)
        with file._writing() as run:  # in one go: by ones it takes minutes
            for n in range(TEMPLATES):
                v = rng.standard_normal(WIDTH).astype(np.float32)
                table[n] = v / np.linalg.norm(v)
                run("INSERT INTO subject (name, added) VALUES (?, 1795800000)", (f"person{n}",))
                run(
                    "INSERT INTO image (subject, vector, norm, score, content, added) "
                    "VALUES (?, ?, ?, ?, ?, 1795800000)",
                    (n + 1, table[n].tobytes(), 20.1, 0.9, rng.bytes(16)),
                )
        size = path.stat().st_size
        np.save(plain, table)

        def open_gallery() -> None:
            opened = open_gallery_file(path)
            assert len(GalleryMemory(opened.rows(WIDTH), WIDTH, path).vectors) == TEMPLATES
            opened.close()

        ours, peer, _ = turns(open_gallery, lambda: np.load(plain), 5)
        seconds = []
        for n in range(9):
            start = time.perf_counter()
            file.remove(f"person{n * 20_000}")
            seconds.append(time.perf_counter() - start)
        file.close()
    return [
        {"what": f"open a gallery of {TEMPLATES}", "seconds": ours,
         "peer": "np.load of the float16 table", "peer_seconds": peer, "ratio": ours / peer},
        {"what": "bytes a template, with its person", "bytes": size / TEMPLATES},
        {"what": "remove a person", "seconds": statistics.median(seconds)},
    ]  # fmt: skip


def embedding_aligned(model: Model, folder: Path) -> dict[str, Any]:
    """2,000 aligned JPEGs from disk, against the bare network on as many images in memory."""
    photos = [str(folder / name) for name in find_photos(folder)][:2000]
    images = torch.from_numpy(
        np.stack([cv2.imread(p)[..., ::-1] for p in photos[:64]])
    ).permute(0, 3, 1, 2).contiguous()  # fmt: skip
    embedder = model._embedder

    def bare() -> None:
        for _ in range(0, len(photos), 64):
            embedder(images)

    ours, peer, ratio = turns(lambda: model.embed(photos, detector="none", faulty="keep"), bare, 3)
    return {"what": f"embed {len(photos)} aligned JPEGs", "seconds": ours, "peer": "bare network",
            "peer_seconds": peer, "ratio_of_rates": 1 / ratio}  # fmt: skip


def embedding_photos(path: Path, folder: Path) -> dict[str, Any]:
    """500 photographs against a loop of detect, align, embed one."""
    photos = [str(folder / name) for name in find_photos(folder)][:500]
    model = marginface.load(path, input=STATED, flip=False)
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name

    def loop() -> None:
        cv2.setNumThreads(os.cpu_count() or 1)
        detector = YuNet(yunet_file())
        for photo in photos:
            rgb = np.ascontiguousarray(cv2.imread(photo)[..., ::-1])
            faces = detector(rgb, photo)
            for face in faces:
                x = align(rgb, face.points).astype(np.float32) / 127.5 - 1
                session.run(None, {name: x.transpose(2, 0, 1)[None]})

    ours, peer, ratio = turns(
        lambda: model.embed(photos, face="all", faulty="keep", min_face=0), loop, 3
    )
    return {"what": f"embed {len(photos)} photographs", "seconds": ours,
            "peer": "detect, align, embed one by one", "peer_seconds": peer,
            "times_as_fast": 1 / ratio}  # fmt: skip


def cold_start(path: Path, folder: Path) -> dict[str, Any]:
    """`marginface verify` against importing torch, onnxruntime and OpenCV."""
    first, second = (str(folder / name) for name in find_photos(folder)[:2])
    command = [str(Path(sys.executable).parent / "marginface"), "verify", str(path), first, second,
               "--aligned", "--threshold", "0.3"]  # fmt: skip
    for key in ("color=rgb", "mean=127.5", "std=127.5"):
        command += ["--describe", key]
    imports = [sys.executable, "-c", "import torch, onnxruntime, cv2"]
    ours, peer, ratio = turns(
        lambda: subprocess.run(command, capture_output=True, check=False),
        lambda: subprocess.run(imports, check=True),
        9,
    )
    return {"what": "marginface verify, cold", "seconds": ours,
            "peer": "python -c 'import torch, onnxruntime, cv2'", "peer_seconds": peer,
            "ratio": ratio}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("aligned", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/use.json"))
    given = parser.parse_args()
    threads = torch.get_num_threads()
    rows = [cold_start(given.model, given.aligned)]
    model = marginface.load(given.model, input=STATED)
    rows += [
        embedding_aligned(model, given.aligned),
        embedding_photos(given.model, given.photos),
        *galleries(),
        *searching(),
    ]
    torch.set_num_threads(threads)
    for row in rows:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    versions = {"onnxruntime": onnxruntime.__version__, "opencv": cv2.__version__}
    content = {"hardware": hardware() | versions, "model": given.model.name, "rows": rows}
    given.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
