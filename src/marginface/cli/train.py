"""`python train.py`: one training run, from the composed configuration to result.json."""

from typing import Any

from omegaconf import DictConfig

from marginface.cli.hydra_command import hydra_command
from marginface.config.resolve import to_plain


# Lightning and timm take seconds to import, which `--help` need not wait for.
def _problems(config: dict[str, Any]) -> list[str]:
    from marginface.training.config import train_problems

    return train_problems(config)


@hydra_command("train", _problems)
def main(config: DictConfig) -> None:
    """Train what the configuration describes."""
    from marginface.training.run import train

    train(to_plain(config))
