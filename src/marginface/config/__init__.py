"""Where the YAML files are, how they become objects, and what is wrong with a command line."""

from marginface.config.compose import compose
from marginface.config.resolve import config_dir, to_plain

__all__ = ["compose", "config_dir", "to_plain"]
