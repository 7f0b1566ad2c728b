"""Configuration: where the YAML is, how nodes become objects, checks of a command line."""

from marginface.config.compose import compose
from marginface.config.resolve import config_dir, to_plain

__all__ = ["compose", "config_dir", "to_plain"]
