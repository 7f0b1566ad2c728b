"""Names of people in a text file beside formats that store numbers only."""

from pathlib import Path

from marginface.utils.console import rank_zero_warn

NAMES = "identities.txt"  # a line each, in the order of the class numbers


def read_names(folder: Path, count: int) -> list[str] | None:
    """The names beside a data set; None without such a file, or when it has another number."""
    path = folder / NAMES
    if not path.is_file():
        return None
    names = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    if len(names) != count:
        rank_zero_warn(f"{path} has {len(names)} names for {count} identities and is not used")
        return None
    return names
