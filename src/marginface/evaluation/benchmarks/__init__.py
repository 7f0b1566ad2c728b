"""Benchmarks people publish on: the files they come in, and what is computed from embeddings."""

from marginface.evaluation.benchmarks.base import Benchmark, BenchmarkResult, BenchmarkTask
from marginface.evaluation.benchmarks.demographic import BFWBenchmark, RFWBenchmark
from marginface.evaluation.benchmarks.gallery import GalleryBenchmark
from marginface.evaluation.benchmarks.ijb import IJBBenchmark
from marginface.evaluation.benchmarks.pairs import PairsBenchmark
from marginface.evaluation.benchmarks.tinyface import TinyFaceBenchmark

__all__ = [
    "BFWBenchmark",
    "Benchmark",
    "BenchmarkResult",
    "BenchmarkTask",
    "GalleryBenchmark",
    "IJBBenchmark",
    "PairsBenchmark",
    "RFWBenchmark",
    "TinyFaceBenchmark",
]
