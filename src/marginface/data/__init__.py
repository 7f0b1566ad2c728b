"""Faces in: datasets, verification pairs, samplers and the loader that training uses."""

from marginface.data.dataset import FaceDataset, Subset
from marginface.data.folder import FolderDataset
from marginface.data.loader import make_loader
from marginface.data.pairs import DrawnPairs, PairFile, load_pairs
from marginface.data.recordio import RecordIODataset, write_recordio
from marginface.data.synthetic import SyntheticFaces

__all__ = [
    "DrawnPairs",
    "FaceDataset",
    "FolderDataset",
    "PairFile",
    "RecordIODataset",
    "Subset",
    "SyntheticFaces",
    "load_pairs",
    "make_loader",
    "write_recordio",
]
