"""Which settings of a run are not the defaults."""

from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import open_dict

from marginface.config.resolve import config_dir, to_plain
from marginface.utils.nested import flatten

# What follows from the others, or says only where files are.
FOLLOWING = ("name", "paths.", "trainer.default_root_dir")


def changed_settings(config: dict[str, Any]) -> dict[str, list[Any]]:
    """Flat keys of a training configuration with their value and that of the defaults.

    Args:
        config: resolved. The defaults are those of the package, without configs/local; None stands
            for a key that they do not have. Keys of a part that was exchanged or switched off,
            like parameters of the default head, are left out.
    """
    defaults = _defaults(str(config["paths"]["run_dir"]))
    now, before = flatten(config), flatten(defaults)
    switched_off = {
        key: [value, "..."]
        for key, value in now.items()
        if value is None and any(other.startswith(f"{key}.") for other in before)
    }
    changed = {key: [now[key], before.get(key)] for key in now if now[key] != before.get(key)}
    follows = [
        key
        for key, (value, default) in changed.items()
        if key.startswith(FOLLOWING)
        or (key.endswith(".seed") and (value, default) == (config["seed"], defaults["seed"]))
        or (key.endswith(".name") and (value, default) == (config["name"], defaults["name"]))
    ]
    return {key: pair for key, pair in (changed | switched_off).items() if key not in follows}


def _defaults(run_dir: str) -> dict[str, Any]:
    # Within a run Hydra is at work, and refuses to compose a second one beside it.
    at_work = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = hydra.compose("train", overrides=["~local"])
    finally:
        GlobalHydra.instance().hydra = at_work
    with open_dict(config):
        config.paths.run_dir = run_dir
    return to_plain(config)
