"""Image files on disk: which they are, and their bytes."""

import filecmp
import os
from pathlib import Path, PurePosixPath

from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.hashes import short_hash
from marginface.utils.text_table import readable


def find_photos(source: Path) -> list[str]:
    """Paths of all images below a folder, relative to it and sorted; see `photos_and_others`."""
    return photos_and_others(source)[0]


def photos_and_others(source: Path) -> tuple[list[str], list[str]]:
    """Paths of all images below a folder and of all other files, relative to it and sorted.

    Hidden files are neither.

    Raises:
        MissingInputError: no folder, or no image in it.
        InputError: a folder that cannot be read.
    """
    if not source.is_dir():
        raise MissingInputError(f"no folder {source}")

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    found = sorted(
        str(PurePosixPath(Path(folder, name).relative_to(source)))
        for folder, _, names in os.walk(source, onerror=unreadable, followlinks=True)
        for name in names
    )
    seen = [name for name in found if not is_hidden(name)]
    photos = [name for name in seen if is_image_name(name)]
    if not photos:
        raise MissingInputError(f"no photographs below {source}")
    return photos, [name for name in seen if not is_image_name(name)]


# All that OpenCV reads as 8 bits a channel; the first five are what face sets have.
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jpe", ".jfif", ".jp2", ".tif", ".tiff",
            ".gif", ".avif", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".ras",
            ".sr"}  # fmt: skip


_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir"}  # of macOS and of Synology's file servers


def is_hidden(name: str) -> bool:
    """Whether a path is of what systems leave among data: ._x, .DS_Store, __MACOSX, Thumbs.db."""
    parts = name.split("/")
    return (
        not _SYSTEM_FOLDERS.isdisjoint(parts)
        or parts[-1] == "Thumbs.db"
        or any(part.startswith(".") and part not in (".", "..") for part in parts)
    )


def visible(root: Path, *patterns: str) -> list[Path]:
    """What matches below a folder, sorted, without hidden files."""
    found = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(path for path in found if not is_hidden(path.relative_to(root).as_posix()))


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image we read."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def read_image_file(root: Path, name: str) -> bytes:
    """The bytes of a file, relative to `root` or absolute; InputError when it cannot be read."""
    try:
        # A quarter of the time of Path.read_bytes, which is as much as a read takes.
        path = name if name.startswith("/") else f"{root}/{name}"
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{name!r} is not a name of a file") from error


def same_content(root: Path, first: str, second: str) -> bool:
    """Whether two image files have the same bytes; false for those that cannot be read."""
    one, other = (os.path.join(root, name) for name in (first, second))
    try:
        return os.path.getsize(one) == os.path.getsize(other) and filecmp.cmp(
            one, other, shallow=False
        )
    except (OSError, ValueError):
        return False


_LOOKED_AT = 5  # names of a file that must be there, or one of them


def found_below(
    root: Path, names: list[str], where: Path, setting: str = "data.dataset.images"
) -> list[str]:
    """The names by which images are found below a folder, from those that a text file has.

    They stay as they are when one of the first is there. Otherwise bytes that are no UTF-8 are
    read as Latin-1, backslashes as slashes, and leading folders, those of the machine where the
    file was made, are left out; what was done is printed.

    Args:
        root: the folder.
        names: absolute or relative to it.
        where: the text file, for messages.
        setting: what names the folder, for messages.

    Raises:
        InputError: none of the first images is there in any of these ways.
    """
    first = names[:_LOOKED_AT]

    def there(candidates: list[str]) -> bool:
        return any(os.path.isfile(os.path.join(root, name)) for name in candidates)

    if there(first):
        return names
    slashes = [_plain(name) for name in first]
    for left_out in range(max(name.count("/") for name in slashes) + 1):
        if there([_without_folders(name, left_out) for name in slashes]):
            found = [_without_folders(_plain(name), left_out) for name in names]
            before = readable(names[0])
            how = "in Latin-1" if before == found[0] else f"as {found[0]!r}"
            rank_zero_warn(f"{where}: {before!r} is read {how}, and all others alike")
            return found
    raise InputError(
        f"{where}: none of its first {len(first)} images is below {root}, the first is "
        f"{readable(first[0])!r}; {setting}=<folder> names the folder that paths are relative to"
    )


def _plain(name: str) -> str:
    return readable(name).replace("\\", "/")


def _without_folders(name: str, number: int) -> str:
    return "/".join(name.split("/")[number:]) if number else name


def hash_of_names(names: list[str]) -> str:
    """A short hash of file names in order."""
    return short_hash("\n".join(names))
