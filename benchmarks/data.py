"""Images a second from disk to uint8 batches: ours, insightface's path, ImageFolder, bare decoders.

    python benchmarks/data.py FACES/train

Every way reads the same JPEGs, in one process and in 2 (for loaders: 2 workers), in turn, several
times; the table shows medians. Writes <out>/data.json (every run, hardware, date).

insightface's path (arcface_torch dataset.py) is rebuilt from its description, without MXNet: a
record is sought and read, its header unpacked, the JPEG decoded by OpenCV (as MXNet does), made a
PIL image, flipped at random, made a float tensor, normalized, and collated one by one.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from hardware import hardware
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from marginface.data import FaceDataset, LMDBDataset, RecordIODataset, make_loader, open_faces
from marginface.data.formats.recordio.format import HEADER, LENGTH_MASK, WORDS, read_index
from marginface.data.packing import pack

BATCH, WARM_UP = 128, 16
FORK = multiprocessing.get_context("fork")
Timed = tuple[int, float]  # images, seconds
USUAL = [
    transforms.RandomHorizontalFlip(),
    transforms.ToTensor(),
    transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
]


class InsightFacePath(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The item path of arcface_torch's MXFaceDataset."""

    def __init__(self, root: Path) -> None:
        self.path = root / "train.rec"
        keys, offsets = read_index(root / "train.idx")
        self.offsets = dict(zip(keys.tolist(), offsets.tolist(), strict=True))
        self.file: Any = None
        self.process = 0
        self.transform = transforms.Compose([transforms.ToPILImage(), *USUAL])
        self.count = len(RecordIODataset(root))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.process != os.getpid():  # as MXNet does: forked files share their position
            self.file, self.process = self.path.open("rb"), os.getpid()
        self.file.seek(self.offsets[index + 1])
        _, word = WORDS.unpack(self.file.read(WORDS.size))
        payload = self.file.read(word & LENGTH_MASK)
        flag, label, _, _ = HEADER.unpack_from(payload)
        assert flag == 0
        image = np.frombuffer(payload, np.uint8, offset=HEADER.size)
        rgb = cv2.cvtColor(cv2.imdecode(image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return self.transform(rgb), torch.tensor(label, dtype=torch.long)

    def __len__(self) -> int:
        return self.count


def one_thread(_: int = 0) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def plain_loader(dataset: Dataset[Any], workers: int) -> DataLoader[Any]:
    return DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, worker_init_fn=one_thread, drop_last=True
    )


def our_loader(dataset: FaceDataset, workers: int) -> DataLoader[Any]:
    return make_loader(
        dataset, batch_size=BATCH, num_workers=workers, shuffle=True, seed=1, drop_last=True
    )


def through(loader: Iterable[Any]) -> Timed:
    """Images that came out in the steady state: without the first batches, which workers prepare
    while the clock would not run yet, and without starting the workers."""
    batches = iter(loader)
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    count = sum(len(batch[0]) for batch in batches)
    return count, time.perf_counter() - start


def decoders(images: list[bytes]) -> dict[str, Callable[[], Timed]]:
    """The machine's ceiling: decoding from memory and nothing else, RGB out."""

    def opencv() -> Timed:
        start = time.perf_counter()
        for image in images:
            bgr = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        return len(images), time.perf_counter() - start

    def simple() -> Timed:
        start = time.perf_counter()
        for image in images:
            simplejpeg.decode_jpeg(image, "RGB")
        return len(images), time.perf_counter() - start

    def pillow() -> Timed:
        start = time.perf_counter()
        for image in images:
            np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        return len(images), time.perf_counter() - start

    tasks = {"OpenCV": opencv, "simplejpeg": simple, "PIL": pillow}
    return {f"decode {name}, one process": task for name, task in tasks.items()} | {
        f"decode {name}, 2 processes": lambda t=task: side_by_side(t)
        for name, task in tasks.items()
    }


def side_by_side(task: Callable[[], Timed]) -> Timed:
    """The task in two forked processes at once: cores share caches, memory and clock."""
    barrier, times = FORK.Barrier(2), FORK.Queue()

    def run() -> None:
        barrier.wait()
        times.put(task())

    processes = [FORK.Process(target=run) for _ in range(2)]
    for process in processes:
        process.start()
    results = [times.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return sum(count for count, _ in results), max(seconds for _, seconds in results)


def ways(root: Path, folder: Path) -> dict[str, Callable[[], Timed]]:
    """Everything that is timed, by name."""
    source = open_faces(root)
    for name in ("recordio", "lmdb"):
        pack(source, folder / name, name)
    records, peer = RecordIODataset(folder / "recordio"), InsightFacePath(folder / "recordio")
    images = [records.image_bytes(i) for i in range(0, len(records), 4)]
    tasks: dict[str, Callable[[], Timed]] = dict(decoders(images))
    image_folder = ImageFolder(str(root), transforms.Compose(USUAL))
    for workers in (0, 2):
        how = "one process" if workers == 0 else "2 processes"
        for name, data in (
            ("RecordIO", records),
            ("folder", source),
            ("LMDB", LMDBDataset(folder / "lmdb")),
        ):
            tasks[f"marginface {name}, {how}"] = lambda d=data, w=workers: through(our_loader(d, w))
        tasks[f"insightface, {how}"] = lambda w=workers: through(plain_loader(peer, w))
        tasks[f"ImageFolder, {how}"] = lambda w=workers: through(plain_loader(image_folder, w))
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path, help="folder of identities with aligned JPEGs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    one_thread()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = ways(arguments.root, Path(folder))
        for repeat in range(arguments.repeats + 1):
            for name, task in tasks.items():  # in turn, so that all see the same machine
                count, seconds = task()
                if repeat:  # the first round fills the page cache
                    rates.setdefault(name, []).append(count / seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print("| | images/s | of the fastest decoder | against insightface |")
    print("|---|---|---|---|")
    for name, rate in medians.items():
        how = name.partition(", ")[2]
        share = rate / max(
            other for n, other in medians.items() if n.startswith("decode") and n.endswith(how)
        )
        times = f"{rate / medians[f'insightface, {how}']:.1f}x"
        print(f"| {name} | {rate:,.0f} | {share:.2f} | {times} |")
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"hardware": hardware(), "medians": medians, "runs": rates}
    (arguments.out / "data.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
