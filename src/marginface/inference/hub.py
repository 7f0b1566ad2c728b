"""Shared folders to and from a model hub."""

import re
from pathlib import Path
from typing import Any

from marginface.inference.shared_folder import CARD, CONFIG, WEIGHTS, open_shared_folder
from marginface.utils.errors import InputError, MissingInputError, first_line
from marginface.utils.optional_packages import require_package

PREFIX = "hf:"
# Nothing that could run is fetched.
_FETCHED = ["*.safetensors", "*.json", "*.md", "*.onnx", "LICENSE"]
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def repository(address: str) -> tuple[str, str | None]:
    """Owner/name and revision of "hf:owner/name@revision".

    Raises:
        InputError: something else.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(name) or ("@" in address and not revision):
        raise InputError(f"{address!r}: expected hf:owner/name or hf:owner/name@revision")
    return name, revision or None


def push(folder: Path, address: str, *, private: bool = True, client: Any = None) -> str:
    """Upload a shared folder; returns the address of what was uploaded.

    Args:
        folder: see `write_shared_folder`.
        address: "owner/name" or "hf:owner/name"; made when it is not there.
        private: of a repository that is made.
        client: in place of `huggingface_hub.HfApi()`.

    Raises:
        InputError: not a shared folder, or the hub refuses.
    """
    name, revision = repository(address)
    open_shared_folder(folder)
    for part in (WEIGHTS, CONFIG, CARD):
        if not (folder / part).is_file():
            raise MissingInputError(f"no {folder / part}; give a folder that marginface exported")
    hub = require_package("huggingface_hub", extra="export") if client is None else None
    api = hub.HfApi() if hub is not None else client
    try:
        api.create_repo(repo_id=name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            revision=revision,
            allow_patterns=_FETCHED,
            commit_message="Model exported by marginface",
        )
    except Exception as error:  # the hub has many ways to refuse
        raise InputError(f"{name} was not uploaded: {first_line(error)}") from error
    return f"{PREFIX}{name}@{getattr(done, 'oid', None) or 'main'}"


def pull(address: str, target: Path | None = None, *, client: Any = None) -> Path:
    """Fetch a shared folder; returns where it is.

    Args:
        address: "hf:owner/name@revision".
        target: new folder; the hub's cache otherwise.
        client: in place of the module huggingface_hub.

    Raises:
        InputError: a target that exists, or the hub does not have it.
    """
    name, revision = repository(address)
    if target is not None and target.exists():
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    hub = require_package("huggingface_hub", extra="export") if client is None else client
    try:
        folder = hub.snapshot_download(
            repo_id=name,
            revision=revision,
            allow_patterns=_FETCHED,
            **({} if target is None else {"local_dir": str(target)}),
        )
    except Exception as error:  # the hub has many ways to refuse
        raise InputError(f"{name} was not fetched: {first_line(error)}") from error
    return Path(folder)
