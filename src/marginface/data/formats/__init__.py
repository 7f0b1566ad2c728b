"""Readers and writers of data formats, one file each.

Every module and package of this folder that does not begin with an underscore is imported, so a new
file with `@register_format` is a new format.
"""

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
from marginface.utils.plugins import import_modules

import_modules(__name__, __path__)

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
