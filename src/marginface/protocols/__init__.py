"""Benchmarks people publish on: the files they come in, and what is computed from embeddings."""

from marginface.protocols.gallery import GalleryBenchmark
from marginface.protocols.ijb import IJBBenchmark
from marginface.protocols.pairs import PairsBenchmark
from marginface.protocols.task import Benchmark, Outcome, Task
from marginface.protocols.tinyface import TinyFaceBenchmark

__all__ = [
    "Benchmark",
    "GalleryBenchmark",
    "IJBBenchmark",
    "Outcome",
    "PairsBenchmark",
    "Task",
    "TinyFaceBenchmark",
]
