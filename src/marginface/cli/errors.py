"""Errors of commands: one message and an exit code; a traceback only for what is a bug of ours."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marginface.utils.arguments import argument_named_in
from marginface.utils.errors import (
    CheckpointWriteError,
    InputError,
    NonFiniteLossError,
    PreemptedError,
    ProcessLostError,
    first_line,
)

# What these raise is because of a setting or a file: they are given nothing else.
_LIBRARIES = ("lightning", "lightning_fabric", "pytorch_lightning", "lightning_utilities", "hydra",
              "omegaconf", "timm", "wandb", "cv2", "pyarrow", "lmdb", "onnx", "onnxruntime",
              "safetensors", "yaml", "jsonargparse", "huggingface_hub")  # fmt: skip
# Whose frames say nothing of who is at fault: they compute what they are told to.
_TOOLS = ("torch", "numpy", "scipy", "torchvision", "torchmetrics")
_OURS = "marginface"


@contextmanager
def clear_errors() -> Iterator[None]:
    """One message on stderr, and exit code 2 for user mistakes, 1 for a run that broke down.

    MARGINFACE_TRACEBACK=1 shows the traceback as well.
    """
    try:
        yield
    except InputError as error:
        raise _ended(error, str(error), 2) from None
    except (NonFiniteLossError, CheckpointWriteError, ProcessLostError) as error:
        raise _ended(error, str(error), 1) from None
    except PreemptedError as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        message = _because_of_the_user(error)
        if message is not None:
            raise _ended(error, message, 2) from None
        if _raised_in(error) == _OURS:
            traceback.print_exc()
            print(
                "this is a bug of marginface: please open an issue with all of the above and the "
                "command (CONTRIBUTING.md says where)",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
        raise  # in code of the user's own, for example


def _ended(error: BaseException, message: str, code: int) -> SystemExit:
    if os.environ.get("MARGINFACE_TRACEBACK") == "1":
        traceback.print_exception(error)
    print(f"error: {_without_worker_traceback(message)}", file=sys.stderr)
    return SystemExit(code)


def _because_of_the_user(error: Exception) -> str | None:
    """The message for what a library or the system raised because of a setting or a file."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        first = first_line(error)
        return f"out of memory: lower data.batch_size or raise accumulate_grad_batches ({first})"
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    kind = type(error)
    owner = _raised_in(error)
    library = next(
        (name for name in (kind.__module__.partition(".")[0], owner) if name in _LIBRARIES), None
    )
    if library is None:
        return None
    if isinstance(error, KeyError | IndexError | ZeroDivisionError | AttributeError):
        return (
            f"{library}: {kind.__name__}: {first_line(error)} (MARGINFACE_TRACEBACK=1 shows where)"
        )
    return f"{_source(library, str(error))}: {first_line(error)}"


def _raised_in(error: Exception) -> str:
    """The package whose code raised an exception, or called the tool that did."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        package = _package_of(frame.filename)
        if package not in _TOOLS and package:
            return package
    return ""


def _package_of(filename: str) -> str:
    """The top package of a file; nothing for the standard library."""
    parts = Path(filename).parts
    if "site-packages" in parts:
        return parts[len(parts) - parts[::-1].index("site-packages")].removesuffix(".py")
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return _OURS
    return "" if filename.startswith((sys.base_prefix, "<")) else "code of the user"


def _source(library: str, message: str) -> str:
    """The setting of Lightning's trainer that a message is about, else the library."""
    trainer = getattr(sys.modules.get(library), "Trainer", None)  # Lightning runs if it raised
    name = None if trainer is None else argument_named_in(message, trainer)
    return library if name is None else f"trainer.{name}"


def _without_worker_traceback(message: str) -> str:
    # A DataLoader worker's exception arrives as its whole traceback; the last line is ours.
    if not message.startswith("Caught "):
        return message
    return message.rstrip().splitlines()[-1].split("Error: ", 1)[-1]
