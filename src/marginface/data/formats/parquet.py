"""Images in Parquet files, as Hugging Face stores image sets.

A column `image` holds encoded bytes, or Hugging Face's struct of `bytes` and `path`; a column
`label` (or `identity`) class numbers or names.
"""

import json
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format
from marginface.data.formats.list import number_labels
from marginface.data.image_files import visible
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.optional_packages import require_package

_IMAGES, _LABELS = ("image", "img", "jpg"), ("label", "identity", "cls", "target")


@register_format("parquet", suffixes=(".parquet",), contains=("*.parquet", "*/*.parquet"), rank=30)
class ParquetDataset(FaceDataset):
    """Images of all .parquet files of a folder, or of one; needs pyarrow (`marginface[parquet]`).

    Parquet is read in row groups: a process keeps the last one it read. Shuffled reading of large
    sets is faster after `marginface pack`, or with cache=true.

    Args:
        root: the file, or a folder with files in it or below.
        split: which of Hugging Face's splits, where the names tell several: train, test, ...
        options: see `FaceDataset`.

    Raises:
        MissingInputError: no file.
        InputError: several splits and none chosen, no column of images or labels, no pyarrow.
    """

    def __init__(
        self, root: str | Path, *, split: str | None = None, **options: Unpack[ReadingOptions]
    ) -> None:
        root = Path(root)
        self.paths = _find_files(root, split)
        self._parquet = require_package("pyarrow.parquet", extra="parquet")
        self._groups: list[tuple[int, int]] = []  # file and row group
        starts = [0]
        words: list[str] = []
        names: list[str] | None = None
        for number, path in enumerate(self.paths):
            with self._open(path) as file:
                self._image_column = _column(file, _IMAGES, path)
                label_column = _column(file, _LABELS, path)
                column = file.read([label_column]).column(label_column)
                words += ["" if v is None else str(v) for v in column.to_pylist()]
                names = names or _class_names(file, label_column)
                for group in range(file.num_row_groups):
                    self._groups.append((number, group))
                    starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        if "" in words:
            raise InputError(f"{root}: row {words.index('')} has no label")
        self._starts = np.asarray(starts)
        self._group: tuple[int, list[Any]] | None = None
        labels, identities = number_labels(words, root) if words else (np.empty(0, np.int64), None)
        num_classes = None
        if identities is None and names is not None:
            identities, num_classes = names, len(names)
        super().__init__(labels, num_classes, where=str(root), identities=identities, **options)

    def image_bytes(self, index: int) -> bytes:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if self._group is None or self._group[0] != group:
            self._group = group, self._read_group(group)
        content = self._group[1][index - int(self._starts[group])]
        if not isinstance(content, bytes):
            raise InputError("no image bytes in this row (Hugging Face keeps a path only)")
        return content

    def describe(self, index: int) -> str:
        return f"row {index} of {self.where}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None, "_parquet": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parquet = require_package("pyarrow.parquet", extra="parquet")

    def _open(self, path: Path) -> Any:
        try:
            return self._parquet.ParquetFile(path)
        except (OSError, ValueError) as error:  # pyarrow's errors derive from these
            raise InputError(f"{path}: not a Parquet file ({error})") from error

    def _read_group(self, number: int) -> list[Any]:
        path, group = self._groups[number]
        try:
            with self._open(self.paths[path]) as file:
                values = file.read_row_group(group, [self._image_column]).column(0).to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's errors derive from these
            raise InputError(f"row group {group} is damaged ({error})") from error
        return [v.get("bytes") if isinstance(v, dict) else v for v in values]


def _find_files(root: Path, split: str | None) -> list[Path]:
    """The Parquet files of a split, known by names as train-00000-of-00002.parquet."""
    paths = [root] if root.is_file() else visible(root, "**/*.parquet")
    splits = {p: p.name.split("-")[0] if "-of-" in p.name else "" for p in paths}
    if split is not None:
        paths = [p for p in paths if splits[p] == split]
    elif len(set(splits.values())) > 1:
        names = ", ".join(sorted(set(splits.values())))
        raise InputError(f"{root} holds the splits {names}; choose one: data.dataset.split=train")
    if not paths:
        raise MissingInputError(f"no .parquet file in {root}; check data.root and the split")
    return paths


def _column(file: Any, known: tuple[str, ...], path: Path) -> str:
    columns = file.schema_arrow.names
    for name in known:
        if name in columns:
            return name
    raise InputError(
        f"{path}: no column {' or '.join(known)}, it has {', '.join(columns)}; rename one"
    )


def _class_names(file: Any, column: str) -> list[str] | None:
    """Names of a Hugging Face ClassLabel, which the schema's metadata keeps."""
    metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) else list(names.values())
