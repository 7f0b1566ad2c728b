"""Several sources as one dataset: labels renumbered, identities merged or dropped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats import open_faces
from marginface.data.image_dataset import Labels
from marginface.data.images import Pixels
from marginface.utils.errors import InputError, MissingInputError, did_you_mean
from marginface.utils.text_table import read_table, readable

Person = tuple[int, str]  # number of a source and an identity in it


class JoinedDataset(FaceDataset):
    """The images of several datasets one after the other.

    Identities are numbered in the order of the sources; merged ones take the lowest number, and
    numbers stay without gaps.

    Args:
        sources: any of ours, with images of one size.
        merge: csv of identities that are one person, lines `source,identity,source,identity`, with
            sources counted from 0 and identities by name (or label where there are no names).
        drop: csv of identities to leave out, lines `source,identity`.

    Raises:
        InputError: no source, other sizes, or a line that names an unknown person.
    """

    def __init__(
        self,
        sources: list[FaceDataset],
        *,
        merge: str | Path | None = None,
        drop: str | Path | None = None,
    ) -> None:
        if not sources:
            raise InputError("data.roots is empty; name at least one source")
        sizes = sorted({source.image_size for source in sources})
        if len(sizes) > 1:
            raise InputError(f"the sources have images of several sizes, {sizes}; use one")
        self.sources = sources
        offsets = np.cumsum([0, *(source.num_classes for source in sources)])
        people = IdentityTable(sources, offsets)
        person = np.arange(offsets[-1])
        for line in read_people(merge, 2) if merge else []:
            _merge(person, people.number(line[0], merge), people.number(line[1], merge))
        labels = np.concatenate([s.labels + o for s, o in zip(sources, offsets, strict=False)])
        # Whoever is merged with a dropped person is dropped too: they are one.
        dropped = [people.number(line[0], drop) for line in read_people(drop, 1)] if drop else []
        kept = np.flatnonzero(~np.isin(person[labels], person[np.asarray(dropped, np.int64)]))
        if not len(kept):
            raise InputError(f"{drop} leaves no image")
        self._image_starts = np.cumsum([0, *map(len, sources)])
        self._chosen = kept
        persons, numbers = np.unique(person[labels[kept]], return_inverse=True)
        super().__init__(
            numbers.astype(np.int64),
            len(persons),
            where=" + ".join(source.where for source in sources),
            identities=[people.name(int(p)) for p in persons],
            image_size=sizes[0],
        )

    def image_bytes(self, index: int) -> bytes:
        source, place = self._place(index)
        return source.image_bytes(place)

    def fill(self, index: int, out: Pixels) -> None:
        source, place = self._place(index)
        source.fill(place, out)

    def read(self, index: int, out: Pixels) -> bool:
        source, place = self._place(index)
        return source.read(place, out)

    @property
    def may_skip(self) -> bool:
        return any(source.may_skip for source in self.sources)

    @property
    def skipped(self) -> int:
        return sum(source.skipped for source in self.sources)

    def describe(self, index: int) -> str:
        source, place = self._place(index)
        return source.describe(place)

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"of": [source.fingerprint() for source in self.sources]}

    def _place(self, index: int) -> tuple[FaceDataset, int]:
        image = int(self._chosen[index])
        number = int(np.searchsorted(self._image_starts, image, side="right")) - 1
        return self.sources[number], image - int(self._image_starts[number])


def join_faces(
    roots: list[str],
    *,
    merge: str | None = None,
    drop: str | None = None,
    **options: Unpack[ReadingOptions],
) -> JoinedDataset:
    """Sources of any format, found by what is at each root, joined."""
    return JoinedDataset([open_faces(root, **options) for root in roots], merge=merge, drop=drop)


class IdentityTable:
    """Numbers and names of the identities of all sources.

    Args:
        sources: in order.
        offsets: what is added to the labels of each.
    """

    def __init__(self, sources: list[FaceDataset], offsets: Labels) -> None:
        self._sources, self._offsets = sources, offsets
        self._numbers: list[dict[str, int]] = [
            {s.identity(label): label for label in range(s.num_classes)} for s in sources
        ]

    def number(self, person: Person, path: Any) -> int:
        """Joint label of an identity; InputError, naming the file, for an unknown one."""
        source, name = person
        if not 0 <= source < len(self._sources):
            raise InputError(
                f"{path}: source {source} of {len(self._sources)}; they are counted from 0"
            )
        known = self._numbers[source]
        if name not in known and self._sources[source].identities is None and name.isdigit():
            name = self._sources[source].identity(int(name))
        if name not in known:
            raise InputError(
                f"{path}: source {source} ({self._sources[source].where}) has no identity "
                f"{name!r}.{did_you_mean(name, known)}"
            )
        return int(self._offsets[source]) + known[name]

    def name(self, label: int) -> str:
        """Source and name of a joint label."""
        source = int(np.searchsorted(self._offsets, label, side="right")) - 1
        return f"{source}-{self._sources[source].identity(label - int(self._offsets[source]))}"


def read_people(path: str | Path, count: int) -> list[list[Person]]:
    """Lines of `count` times `source,identity`.

    Raises:
        MissingInputError, InputError: no such file, or another line in it.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no file {path}; check data.dataset.merge and data.dataset.drop")
    people = []
    table = read_table(path, lambda fields, others: any("source" in f for f in fields))
    for line in table.lines:
        cells = _in_our_order(line.fields, table.headings or [], count)
        if len(cells) != 2 * count or not all(source.isdecimal() for source in cells[::2]):
            wanted = ",".join(["source,identity"] * count)
            raise InputError(
                f"{path}: line {line.number} is not '{wanted}', got {line.text!r}; sources are "
                "numbers, counted from 0 (data.dataset.merge, data.dataset.drop)"
            )
        people.append(list(zip(map(int, cells[::2]), map(readable, cells[1::2]), strict=True)))
    return people


def _in_our_order(fields: Sequence[str], headings: list[str], count: int) -> Sequence[str]:
    """Cells as source,identity (twice to merge), in whatever order headings have them."""
    numbers = [""] if count == 1 else ["1", "2"]
    wanted = [f"{name}{number}" for number in numbers for name in ("source", "identity")]
    plain = [heading.replace("_", "") for heading in headings]
    if set(wanted) <= set(plain) and len(fields) == len(headings):
        return [fields[plain.index(name)] for name in wanted]
    return fields


def _merge(person: Labels, first: int, second: int) -> None:
    """Give two identities, and all merged with either, one number."""
    low, high = sorted((person[first], person[second]))
    person[person == high] = low
