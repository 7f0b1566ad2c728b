"""Faces in: datasets, verification pairs, samplers and the loader that training uses."""

from marginface.data.augmentation import Augmentation
from marginface.data.dataset import FaceDataset, Subset
from marginface.data.folder import FolderDataset
from marginface.data.joined import JoinedDataset, join_faces
from marginface.data.list_file import ListDataset
from marginface.data.lmdb_file import LMDBDataset
from marginface.data.loader import make_loader
from marginface.data.pair_files import write_pair_file
from marginface.data.pairs import DrawnPairs, PairFile, load_pairs
from marginface.data.parquet import ParquetDataset
from marginface.data.recordio import RecordIODataset
from marginface.data.recordio_writer import write_recordio
from marginface.data.shards import ShardDataset
from marginface.data.sources import open_faces
from marginface.data.synthetic import SyntheticFaces

__all__ = [
    "Augmentation",
    "DrawnPairs",
    "FaceDataset",
    "FolderDataset",
    "JoinedDataset",
    "LMDBDataset",
    "ListDataset",
    "PairFile",
    "ParquetDataset",
    "RecordIODataset",
    "ShardDataset",
    "Subset",
    "SyntheticFaces",
    "join_faces",
    "load_pairs",
    "make_loader",
    "open_faces",
    "write_pair_file",
    "write_recordio",
]
