"""Face images: datasets, verification pairs, samplers, and the loader that training uses."""

from marginface.data.augmentation import Augmentation
from marginface.data.dataset import FaceDataset, Subset
from marginface.data.formats import open_faces, register_format, register_writer
from marginface.data.formats.folder import FolderDataset
from marginface.data.formats.list import ListDataset
from marginface.data.formats.lmdb import LMDBDataset
from marginface.data.formats.parquet import ParquetDataset
from marginface.data.formats.recordio import RecordIODataset, write_recordio
from marginface.data.formats.shards import ShardDataset
from marginface.data.image_dataset import ImageDataset
from marginface.data.joined import JoinedDataset, join_faces
from marginface.data.loader import make_loader
from marginface.data.pairs.files import write_pair_file
from marginface.data.pairs.verification_sets import PairFile, SampledPairs, load_pairs
from marginface.data.synthetic.faces import SyntheticFaces

__all__ = [
    "Augmentation",
    "FaceDataset",
    "FolderDataset",
    "ImageDataset",
    "JoinedDataset",
    "LMDBDataset",
    "ListDataset",
    "PairFile",
    "ParquetDataset",
    "RecordIODataset",
    "SampledPairs",
    "ShardDataset",
    "Subset",
    "SyntheticFaces",
    "join_faces",
    "load_pairs",
    "make_loader",
    "open_faces",
    "register_format",
    "register_writer",
    "write_pair_file",
    "write_recordio",
]
