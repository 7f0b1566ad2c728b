"""The run folder and its metadata: what was run, on what, and its result."""

import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from marginface.utils.errors import InputError, MissingInputError, check_choice, first_line
from marginface.utils.files import atomic_write, read_json, write_json, write_lines
from marginface.utils.renamed import with_new_names


class RunFolder:
    """A run on disk: config.yaml, runinfo.json, identities.txt, checkpoints, result.json, ..."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.runinfo = self.path / "runinfo.json"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.thresholds = self.path / "thresholds.json"
        self.result = self.path / "result.json"
        self.metrics = self.path / "metrics.csv"
        self.status = self.path / "status.json"
        self.curves = self.path / "curves.json"
        self.report = self.path / "report.html"
        self.identities = self.path / "identities.txt"

    def checkpoint(self, which: str = "best") -> Path:
        """The best checkpoint by validation or, where there is none, the last one.

        Args:
            which: "best" as above, "last" the last one anyway.

        Raises:
            MissingInputError: the run has none.
            InputError: another word.
        """
        check_choice("checkpoint", which, ("best", "last"))
        path = self.best if which == "best" and self.best.is_file() else self.last
        if not path.is_file():
            raise MissingInputError(
                f"no checkpoint {path}; {self.path} is not a run folder with one"
            )
        return path

    def read_thresholds(self, step: int | None) -> list[dict[str, Any]]:
        """Thresholds of the validation after `step` optimizer steps; none where none was made."""
        found: dict[str, list[dict[str, Any]]] = read_json(self.thresholds)
        return found.get(str(step), [])

    def add_thresholds(self, step: int, found: list[dict[str, Any]]) -> None:
        """Keep the thresholds of a validation for the checkpoints of that step."""
        write_json(self.thresholds, read_json(self.thresholds) | {str(step): found})

    def read_config(self) -> dict[str, Any]:
        """What was set, under today's names.

        Raises:
                MissingInputError: no config.yaml.
            InputError: it cannot be read.
        """
        if not self.config.is_file():
            missing = "it has no config.yaml" if self.path.is_dir() else "it does not exist"
            missing = "it is a file; name its folder" if self.path.is_file() else missing
            raise MissingInputError(f"{self.path} is not a run folder: {missing}")
        try:
            content = yaml.safe_load(self.config.read_text())
        except yaml.YAMLError as error:
            raise InputError(f"{self.config} is damaged: {first_line(error)}") from error
        if not isinstance(content, dict):
            raise InputError(f"{self.config} is damaged: it holds no settings")
        return with_new_names(content)

    def read_info(self) -> dict[str, Any]:
        """runinfo.json; empty where it is missing."""
        return read_json(self.runinfo)

    def read_curves(self) -> dict[str, Any]:
        """Curves to draw: that of the head, and those of the last validation."""
        return read_json(self.curves)

    def add_curves(self, curves: dict[str, Any]) -> None:
        """Add to curves.json, in place of what had the same key."""
        write_json(self.curves, self.read_curves() | curves)

    def read_result(self) -> dict[str, float]:
        """The flat metrics written so far."""
        return read_json(self.result)

    def add_result(self, metrics: dict[str, float]) -> None:
        """Add flat metrics to result.json."""
        write_json(self.result, self.read_result() | metrics)

    def write_identities(self, names: list[str] | None) -> None:
        """Write what people are called, a line each in the order of their labels."""
        if names is not None:
            write_lines(self.identities, names)

    def begin(self, config: dict[str, Any], info: dict[str, Any]) -> None:
        """Write what is run; a resumed run keeps the list of earlier starts."""
        starts = self.read_info().get("starts", [])
        starts.append({"command": shlex.join(sys.argv), "world_size": info["world_size"]})
        write_json(self.runinfo, info | {"starts": starts})
        with atomic_write(self.config, "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)
