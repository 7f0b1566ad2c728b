"""Makes a command with Hydra's overrides from a function of a composed configuration."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marginface.cli.errors import clear_errors
from marginface.cli.printed import printed_to
from marginface.config.command_line import Problems, check_command_line
from marginface.config.quoting import with_quotes
from marginface.config.resolve import config_dir, with_own_configs
from marginface.runs.folder import RunFolder
from marginface.utils.errors import InputError


def hydra_command(
    config_name: str, problems: Problems
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorator: a function of the composed configuration becomes a command.

    Args:
        config_name: of the configuration in configs/.
        problems: what is wrong with a resolved configuration, in words.

    The command line is checked as a whole before Hydra sees it, because Hydra stops at the first
    mistake and would already have made the run folder.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @wraps(task)
        def with_clear_errors(config: DictConfig) -> None:
            hydra_config = HydraConfig.get()
            log = Path(hydra_config.runtime.output_dir) / f"{hydra_config.job.name}.log"
            with printed_to(log), clear_errors():
                task(config)

        @wraps(task)
        def main() -> None:
            with clear_errors():
                # Hydra reads them again, and so do further processes.
                sys.argv[1:] = with_own_configs(with_quotes(sys.argv[1:]))
                with _plugins_named(sys.argv[1:]):
                    check_command_line(config_name, sys.argv[1:], problems)
            # An absolute path: a relative one fails when a console script imports the function.
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(
                with_clear_errors
            )()

        return main

    return decorate


@contextmanager
def _plugins_named(arguments: list[str]) -> Iterator[None]:
    """A mistake in the command of a run that is there names the plugins that it was begun with."""
    try:
        yield
    except InputError as error:
        given = dict(word.split("=", 1) for word in arguments if "=" in word)
        for key in ("hydra.run.dir", "resume", "run", "checkpoint"):
            missing = _plugins_of(Path(given.get(key, "")).expanduser())
            if missing:
                raise InputError(
                    f"{error}\n{given[key]} was begun with plugins of its own; add "
                    f"plugins=[{','.join(missing)}]"
                ) from error
        raise


def _plugins_of(folder: Path) -> list[str]:
    """Those of a run folder that are not imported."""
    run = RunFolder(folder)
    if str(folder) == "." or not run.config.is_file():
        return []
    return [name for name in run.read_config().get("plugins", []) if name not in sys.modules]
