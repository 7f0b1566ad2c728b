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

from marginface.utils.errors import InputError


def load_plain(content: bytes) -> Any:
    """What a pickle of lists, tuples, bytes, numbers and NumPy arrays holds; Python 2's too.

    Arrays stay stand-ins; `plain_list` reads them.

    Raises:
        InputError: a pickle that asks for anything else, or that is damaged.
    """
    try:
        return _PlainUnpickler(content).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"not a pickle of images and labels ({type(error).__name__})") from error


def plain_list(value: Any) -> list[Any]:
    """Items of a list, tuple or array: bytes as they are, byte arrays as bytes, other as numbers.

    Raises:
        InputError: something else.
    """
    if isinstance(value, _Array):
        value = value.items()
    if not isinstance(value, list | tuple):
        raise InputError(f"expected a list, got {type(value).__name__}")
    return [item.raw() if isinstance(item, _Array) else item for item in value]


class _Array:
    """Stands for an ndarray: what it holds, and how to read it."""

    kind: Any = ""  # on the class: a pickle need not call the constructor
    content: Any = None

    def __init__(self, kind: Any = "", content: Any = None) -> None:
        self.kind, self.content = kind, content

    def __setstate__(self, state: Any) -> None:
        _, _, dtype, _, self.content = state  # version, shape, dtype, order, bytes or a list
        self.kind = dtype.kind

    def raw(self) -> bytes:
        """The bytes of an array of bytes, not copied: a pickle may name one array many times."""
        is_bytes = str(self.kind).lstrip("<>|=") in ("u1", "i1")
        if not is_bytes or not isinstance(self.content, bytes):
            raise InputError("an array of something else than bytes")
        return self.content

    def items(self) -> list[Any]:
        """Numbers of an array of numbers, objects of an array of objects."""
        if isinstance(self.content, list):
            return self.content
        try:
            return np.frombuffer(self.content, np.dtype(self.kind)).tolist()
        except (TypeError, ValueError) as error:
            raise InputError(f"a damaged array ({error})") from error


class _DType:
    """Stands for a dtype: its name, of a number, a boolean or an object."""

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
    return np.frombuffer(content, np.dtype(dtype.kind), 1)[0].item()


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _PlainUnpickler(pickle._Unpickler):
    # A bytearray of any size is made before its bytes are looked for; pair files have none.
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._left = 2 * len(content)  # that may come out of text

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._latin1
        if (module, name) not in _NAMES:
            raise InputError(f"its pickle asks for {module}.{name}, which is not data; refused")
        return _NAMES[module, name]

    def _latin1(self, text: str, encoding: Any) -> bytes:
        """Python 3's bytes in protocol 2. Other codecs can double what they get, many times."""
        if encoding not in ("latin1", b"latin1"):
            raise InputError(
                f"its pickle asks for the codec {encoding!r}, which is not data; refused"
            )
        self._left -= len(text)
        if self._left < 0:
            raise InputError("its pickle uses one text many times; refused")
        return text.encode("latin1")

    def _build(self: Any) -> None:
        # Only our stand-ins have a state; a function's could be changed for everybody.
        if not isinstance(self.stack[-2], _Array | _DType):
            raise InputError("its pickle sets the state of something that has none; refused")
        self.load_build()

    dispatch[pickle.BUILD[0]] = _build
