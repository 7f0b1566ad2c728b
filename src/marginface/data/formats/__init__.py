"""Readers and writers of data formats, one file each.

Every module and package of this folder that does not begin with an underscore is imported, so a new
file with `@register_format` is a new format.
"""

import importlib
import pkgutil

from marginface.data.formats._registry import (
    Writer,
    find_format,
    list_formats,
    list_writers,
    open_faces,
    register_format,
    register_writer,
    writer_class,
)

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Writer",
    "find_format",
    "list_formats",
    "list_writers",
    "open_faces",
    "register_format",
    "register_writer",
    "writer_class",
]
