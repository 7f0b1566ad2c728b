"""`python train.py`: one training run, from the composed configuration to result.json."""

from omegaconf import DictConfig

from marginface.cli.hydra_command import hydra_command
from marginface.config.resolve import to_plain
from marginface.training.config import train_problems
from marginface.training.run import train


@hydra_command("train", train_problems)
def main(config: DictConfig) -> None:
    """Train what the configuration describes."""
    train(to_plain(config))
