"""Read pickled lists, bytes and uint8 arrays without running anything, or more than fits the file.

pickle.Unpickler in C lets 5 bytes claim gigabytes (memo indices) and NumPy's own constructors make
arrays of any size, so this is Python's unpickler, and the few names a pair file may hold lead to
classes here that keep bytes.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from marginface.errors import InputError


def load_plain(content: bytes) -> Any:
    """What a pickle of lists, tuples, bytes, numbers and NumPy arrays holds; Python 2's too.

    Raises:
        InputError: a pickle that asks for anything else, or that is damaged.
    """
    try:
        return _plain(_PlainUnpickler(io.BytesIO(content), encoding="bytes").load())
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"not a pickle of images and labels ({type(error).__name__})") from error


class _Array:
    """Stands for an ndarray: its bytes, and what says how to read them."""

    def __init__(self, kind: str = "", content: bytes = b"") -> None:
        self.kind, self.content = kind, content

    def __setstate__(self, state: Any) -> None:
        _, _, dtype, _, content = state  # version, shape, dtype, order, bytes
        self.kind = dtype.kind
        # Python 2 wrote text; a list is an array of objects.
        self.content = content.encode("latin1") if isinstance(content, str) else content
        if isinstance(content, list):
            self.kind = "list"

    def value(self) -> Any:
        if self.kind == "list":
            return [_plain(item) for item in self.content]
        if not isinstance(self.content, bytes | bytearray | memoryview):
            raise InputError("an array without bytes in its pickle")
        return np.frombuffer(self.content, np.dtype(self.kind))


class _DType:
    """Stands for a dtype: its name, of a number or a boolean."""

    def __init__(self, kind: Any, *_: Any) -> None:
        text = kind.decode() if isinstance(kind, bytes) else str(kind)
        if text.lstrip("<>|=") not in _KINDS:
            raise InputError(f"its pickle has an array of {text!r}, not of bytes or booleans")
        self.kind = text

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.kind = order + self.kind.lstrip("<>|=")


_KINDS = {"u1", "i1", "b1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8", "O8", "O"}


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: _DType, *_: Any) -> _Array:
    return _Array(dtype.kind, content)


def _scalar(dtype: _DType, content: Any) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, np.dtype(dtype.kind), 1)[0]


def _latin1(text: Any, encoding: Any) -> bytes:
    # Python 3 bytes in protocol 2. Other codecs can double what they get, again and again.
    if encoding not in ("latin1", "latin-1", b"latin1") or not isinstance(text, str):
        raise InputError(f"its pickle asks for the codec {encoding!r}, which is not data; refused")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
}


class _PlainUnpickler(pickle._Unpickler):
    # A bytearray of any size is made before its bytes are looked for; pair files have none.
    dispatch: ClassVar = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise InputError(f"its pickle asks for {module}.{name}, which is not data; refused")
        return _NAMES[module, name]


def _plain(value: Any) -> Any:
    """The value without our stand-ins, one level deep: lists of arrays, arrays, tuples of both."""
    if isinstance(value, _Array):
        return value.value()
    return value


def plain_list(value: Any) -> list[Any]:
    """The items of a list, tuple or array; InputError for anything else."""
    value = _plain(value)
    if not isinstance(value, list | tuple | np.ndarray):
        raise InputError(f"expected a list, got {type(value).__name__}")
    return [_plain(item) for item in value]
