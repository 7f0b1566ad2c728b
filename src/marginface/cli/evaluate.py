"""`python evaluate.py`: a network on benchmarks, from files to a report."""

from omegaconf import DictConfig

from marginface.cli.hydra_command import hydra_command
from marginface.config.resolve import to_plain
from marginface.evaluation.config import evaluation_problems
from marginface.evaluation.run import evaluate


@hydra_command("evaluate", evaluation_problems)
def main(config: DictConfig) -> None:
    """Evaluate what the configuration describes."""
    evaluate(to_plain(config))
