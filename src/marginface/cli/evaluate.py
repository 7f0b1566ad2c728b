"""`python evaluate.py`: a network on benchmarks, from files to a report."""

from typing import Any

from omegaconf import DictConfig

from marginface.cli.hydra_command import hydra_command
from marginface.config.resolve import to_plain


# torch and timm take seconds to import, which `--help` need not wait for.
def _problems(config: dict[str, Any]) -> list[str]:
    from marginface.evaluation.config import evaluation_problems

    return evaluation_problems(config)


@hydra_command("evaluate", _problems)
def main(config: DictConfig) -> None:
    """Evaluate what the configuration describes."""
    from marginface.evaluation.run import evaluate

    evaluate(to_plain(config))
