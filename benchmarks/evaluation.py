"""Seconds and memory of evaluation: ours against the algorithm of insightface's scripts.

    python benchmarks/evaluation.py              everything, about 12 minutes on 2 cores
    python benchmarks/evaluation.py --rounds 1 --only pairs templates search

The peers are written here from the description of what insightface's scripts do (verification.py:
400 thresholds times 10 folds in Python; IJB: a loop over templates and media, the scores of pairs
from two gathered feature matrices in batches of 100,000, scikit-learn's roc_curve; 1:N: all scores
of a probe sorted), and FAISS where it is installed (IndexFlatIP). Data are random and the same for
all; outputs must be equal. Every measurement is a process of its own: its memory is the highest
resident size less what it had when its inputs were loaded (Linux). Ways take turns; the table shows
medians. Writes <out>/evaluation.json (every run, hardware, date).
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from sklearn.metrics import roc_curve

from marginface.metrics.identification import identification, search
from marginface.metrics.roc import tar_at_far
from marginface.metrics.templates import aggregate_templates, score_templates
from marginface.metrics.verification import evaluate_pairs

PAIRS = 6_000  # LFW
FACES, TEMPLATES, MEDIA, TEMPLATE_PAIRS, GENUINE = 469_375, 23_124, 6, 15_658_489, 19_557  # IJB-C
FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
GALLERY, PROBES, TOP = 1_000_000, 200, 10
WIDTH, THREADS = 512, 2
Arrays = dict[str, np.ndarray]
Way = Callable[[Arrays], tuple[dict[str, float], Arrays]]  # seconds of each part, outputs


def pairs_data() -> Arrays:
    rng = np.random.default_rng(0)
    same = np.tile(np.repeat([True, False], PAIRS // 20), 10)
    first = rng.standard_normal((PAIRS, WIDTH), np.float32)
    second = rng.standard_normal((PAIRS, WIDTH), np.float32) + 0.7 * same[:, None] * first
    return {"embeddings": np.stack([first, second], 1).reshape(-1, WIDTH), "same": same}


def pairs_ours(data: Arrays) -> tuple[dict[str, float], Arrays]:
    start = time.perf_counter()
    result = evaluate_pairs(torch.from_numpy(data["embeddings"]), torch.from_numpy(data["same"]))
    seconds = {"accuracy, TAR, AUC, EER": time.perf_counter() - start}
    return seconds, {"fold accuracy": np.array(result.fold_accuracy)}


def pairs_insightface(data: Arrays) -> tuple[dict[str, float], Arrays]:
    """`evaluate`: 400 thresholds for the accuracy and 4,000 for TAR at FAR, on every fold."""
    start = time.perf_counter()
    embeddings, same = data["embeddings"], data["same"]
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distance = np.sum(np.square(embeddings[0::2] - embeddings[1::2]), 1)
    thresholds = np.arange(0, 4, 0.01)
    accuracies = []
    for block in np.array_split(np.arange(len(same)), 10):
        train = np.ones(len(same), bool)
        train[block] = False
        found = [_rates(t, distance[train], same[train])[2] for t in thresholds]
        best = int(np.argmax(found))
        # The script also computes both rates at every threshold of the held-out fold.
        held_out = [_rates(t, distance[block], same[block]) for t in thresholds]
        accuracies.append(held_out[best][2])
    tars = []
    for block in np.array_split(np.arange(len(same)), 10):
        train = np.ones(len(same), bool)
        train[block] = False
        grid = np.arange(0, 4, 0.001)
        far = np.array([_val_far(t, distance[train], same[train])[1] for t in grid])
        # The script's interp1d refuses equal rates in current SciPy; the first of them here.
        rates, first = np.unique(far, return_index=True)
        tars.append(_val_far(np.interp(1e-3, rates, grid[first]), distance[block], same[block])[0])
    seconds = {"accuracy, TAR": time.perf_counter() - start}
    return seconds, {"fold accuracy": np.array(accuracies)}


def _rates(threshold: float, distance: np.ndarray, same: np.ndarray) -> tuple[float, float, float]:
    accepted = np.less(distance, threshold)
    tp = np.sum(np.logical_and(accepted, same))
    fp = np.sum(np.logical_and(accepted, np.logical_not(same)))
    tn = np.sum(np.logical_and(np.logical_not(accepted), np.logical_not(same)))
    fn = np.sum(np.logical_and(np.logical_not(accepted), same))
    return tp / max(tp + fn, 1), fp / max(fp + tn, 1), float(tp + tn) / len(distance)


def _val_far(threshold: float, distance: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    accepted = np.less(distance, threshold)
    true = np.sum(np.logical_and(accepted, same))
    false = np.sum(np.logical_and(accepted, np.logical_not(same)))
    return true / np.sum(same), false / np.sum(np.logical_not(same))


def templates_data(gallery: int = 3_531) -> Arrays:
    """Pairs as in IJB-C, a gallery template and a probe, ids in no order."""
    rng = np.random.default_rng(0)
    template = np.sort(np.concatenate([np.arange(TEMPLATES),
                                       rng.integers(0, TEMPLATES, FACES - TEMPLATES)]))  # fmt: skip
    same = np.zeros(TEMPLATE_PAIRS, bool)
    same[rng.choice(TEMPLATE_PAIRS, GENUINE, replace=False)] = True
    ids = rng.permutation(TEMPLATES)
    return {
        "features": rng.standard_normal((FACES, WIDTH), np.float32),
        "template": template,
        "media": rng.integers(0, MEDIA, FACES),
        "id1": ids[rng.integers(0, gallery, TEMPLATE_PAIRS)],
        "id2": ids[rng.integers(gallery % TEMPLATES, TEMPLATES, TEMPLATE_PAIRS)],
        "same": same,
    }


def templates_ours(data: Arrays) -> tuple[dict[str, float], Arrays]:
    tensors = {key: torch.from_numpy(value) for key, value in data.items()}
    times = [time.perf_counter()]
    features, ids = aggregate_templates(tensors["features"], tensors["template"], tensors["media"])
    times.append(time.perf_counter())
    scores = score_templates(features, ids, tensors["id1"], tensors["id2"])
    times.append(time.perf_counter())
    tars = tar_at_far(scores, tensors["same"], FARS)
    times.append(time.perf_counter())
    return _parts(times), {"scores": scores.numpy(), "tar": np.array(list(tars.values()))}


def templates_insightface(data: Arrays) -> tuple[dict[str, float], Arrays]:
    times = [time.perf_counter()]
    unique = np.unique(data["template"])
    features = np.zeros((len(unique), WIDTH), np.float32)
    for row, template in enumerate(unique):
        (mine,) = np.where(data["template"] == template)
        faces, media = data["features"][mine], data["media"][mine]
        means = []
        for medium, count in zip(*np.unique(media, return_counts=True), strict=True):
            (frames,) = np.where(media == medium)
            means.append(faces[frames] if count == 1 else faces[frames].mean(0, keepdims=True))
        features[row] = np.concatenate(means).sum(0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    times.append(time.perf_counter())
    place = np.zeros((unique.max() + 1, 1), int)
    place[unique, 0] = np.arange(len(unique))
    scores = np.zeros(len(data["id1"]), np.float32)
    for start in range(0, len(scores), 100_000):
        part = slice(start, start + 100_000)
        first, second = features[place[data["id1"][part], 0]], features[place[data["id2"][part], 0]]
        scores[part] = np.sum(first * second, -1)
    times.append(time.perf_counter())
    far, tar, _ = roc_curve(data["same"], scores)
    far, tar = np.flipud(far), np.flipud(tar)
    tars = [tar[np.argmin(np.abs(far - wanted))] for wanted in FARS]
    times.append(time.perf_counter())
    return _parts(times), {"scores": scores, "tar": np.array(tars)}


def _parts(times: list[float]) -> dict[str, float]:
    names = ("template features", "pair scores", "TAR at FAR")
    return dict(zip(names, np.diff(times).tolist(), strict=True))


def search_data() -> Arrays:
    rng = np.random.default_rng(0)
    data = {
        "gallery": rng.standard_normal((GALLERY, WIDTH), np.float32),
        "probes": rng.standard_normal((PROBES, WIDTH), np.float32),
    }
    # Probe i is entry i, with noise: rank 1 is neither certain nor rare.
    data["probes"] += 0.22 * data["gallery"][:PROBES]
    for features in data.values():
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    return data


def search_ours(data: Arrays) -> tuple[dict[str, float], Arrays]:
    start = time.perf_counter()
    _, places = search(torch.from_numpy(data["probes"]), torch.from_numpy(data["gallery"]), TOP)
    return {"top 10": time.perf_counter() - start}, {"places": places.numpy()}


def identification_ours(data: Arrays) -> tuple[dict[str, float], Arrays]:
    start = time.perf_counter()
    result = identification(
        torch.from_numpy(data["gallery"]), np.arange(GALLERY), torch.from_numpy(data["probes"]),
        np.arange(PROBES), ranks=(1, 5, 10),
    )  # fmt: skip
    seconds = {"rank 1, 5, 10": time.perf_counter() - start}
    return seconds, {"rank": np.array(list(result.rank.values()))}


def search_insightface(data: Arrays) -> tuple[dict[str, float], Arrays]:
    """All scores at once, each probe's sorted whole."""
    start = time.perf_counter()
    scores = np.dot(data["probes"], data["gallery"].T)
    places = np.stack([np.argsort(row)[::-1][:TOP] for row in scores])
    return {"top 10": time.perf_counter() - start}, {"places": places}


def search_faiss(data: Arrays) -> tuple[dict[str, float], Arrays]:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(data["gallery"])  # not timed: it copies
    start = time.perf_counter()
    _, places = index.search(data["probes"], TOP)
    return {"top 10": time.perf_counter() - start}, {"places": places}


def _has_faiss() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


SUITES: dict[str, tuple[Callable[[], Arrays], dict[str, Way]]] = {
    "pairs": (pairs_data, {"ours": pairs_ours, "insightface's algorithm": pairs_insightface}),
    "templates": (
        templates_data,
        {"ours": templates_ours, "insightface's algorithm": templates_insightface},
    ),
    "templates, any with any": (
        partial(templates_data, TEMPLATES),
        {"ours": templates_ours, "insightface's algorithm": templates_insightface},
    ),
    "search": (
        search_data,
        {
            "ours": search_ours,
            "ours, identification()": identification_ours,
            "insightface's algorithm": search_insightface,
            **({"faiss IndexFlatIP": search_faiss} if _has_faiss() else {}),
        },
    ),
}


def _measured(way: Way, folder: str, queue: Any) -> None:
    torch.set_num_threads(THREADS)
    data = {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}
    before = _memory("VmRSS")
    # getrusage's peak is no use: it begins with that of the process this one was forked from.
    Path("/proc/self/clear_refs").write_text("5")
    if data.keys() == {"embeddings", "same"}:
        way(data)  # milliseconds, and validation calls it again and again: the second call counts
    seconds, outputs = way(data)
    memory = _memory("VmHWM") - before
    for name, output in outputs.items():
        np.save(Path(folder) / "out" / f"{way.__name__} {name}.npy", output)
    queue.put({"seconds": seconds, "chunk_mib": memory / 1024})


def _memory(kind: str) -> int:
    """KiB of this process: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(kind)).split()[1])


def measure(way: Way, folder: Path) -> dict[str, Any]:
    """One run of one way in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_measured, args=(way, str(folder), queue))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{way.__name__} ended with {process.exitcode}")
    return queue.get()


def differences(folder: Path, ways: dict[str, Way]) -> dict[str, float]:
    """Largest difference of each output to ours."""
    ours, *others = [way.__name__ for way in ways.values()]
    found = {}
    for path in (folder / "out").glob(f"{ours} *.npy"):
        name = path.stem.removeprefix(f"{ours} ")
        for other in others:
            file = folder / "out" / f"{other} {name}.npy"
            if file.is_file():
                gap = np.load(path).astype(np.float64) - np.load(file)
                found[f"{name}, {other}"] = float(np.abs(gap).max())
    return found


def run_suite(name: str, rounds: int) -> dict[str, Any]:
    """All ways of a suite in turn, `rounds` times."""
    make, ways = SUITES[name]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "out").mkdir()
        for key, value in make().items():
            np.save(folder / f"{key}.npy", value)
        for _ in range(rounds):
            for title, way in ways.items():
                runs[title].append(measure(way, folder))
                print(f"{name}, {title}: {runs[title][-1]}", flush=True)
        gaps = differences(folder, ways)
    medians = {
        title: {
            "seconds": statistics.median(sum(run["seconds"].values()) for run in found),
            "chunk_mib": statistics.median(run["chunk_mib"] for run in found),
        }
        for title, found in runs.items()
    }
    ours = medians["ours"]
    for title, median in medians.items():
        median["times ours"] = median["seconds"] / ours["seconds"]
        share = ours["chunk_mib"] / max(median["chunk_mib"], 0.1)
        print(
            f"{name:10} {title:26} {median['seconds']:8.3f} s {median['chunk_mib']:8.0f} MiB; "
            f"ours is {median['times ours']:.1f}x as fast with {share:.2f} of the memory"
        )
    print(f"{name}: largest differences to ours {gaps}")
    return {"medians": medians, "largest_differences": gaps, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    path = arguments.out / "evaluation.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in arguments.only:
        results[name] = {"hardware": hardware(), "threads": THREADS} | run_suite(
            name, arguments.rounds
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
