"""Checks a command line with overrides as a whole; Hydra itself stops at the first mistake."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from marginface.config.resolve import config_dir, missing_keys, not_set, to_plain
from marginface.utils.errors import (
    InputError,
    did_you_mean,
    first_line,
    raise_problems,
    unknown_name,
)
from marginface.utils.renamed import new_key

_MAX_CHECKED_JOBS = 64


Problems = Callable[[dict[str, Any]], list[str]]


def check_command_line(
    config_name: str, arguments: list[str], find_problems: Problems = lambda config: []
) -> None:
    """InputError with everything that is wrong with the overrides and what they compose to.

    Args:
        config_name: of the configuration in configs/.
        arguments: as on the command line, see `quoting.with_quotes`.
        find_problems: what is wrong with the values of a composed configuration, in words; without
            it groups, options and keys are checked.
    """
    options = get_args_parser().parse_args(arguments)
    if options.help or options.hydra_help or options.info or options.cfg:
        return
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        return  # the first process has checked the same command line
    overrides = _parsed(options.overrides)
    keys = {o.key_or_group for o in overrides}
    sweep = next((o for o in overrides if o.key_or_group == "sweep"), None)
    if sweep is not None and not options.multirun and "hydra.mode" not in keys:  # jobs have a mode
        raise InputError(f"{sweep.input_line} describes several runs; add -m before it")
    # Hydra's own groups (hydra/launcher=...) come from its plugins; it names the known ones itself.
    of_plugins: tuple[str, ...] = ("hydra/", "hydra.launcher.")
    if any(o.key_or_group == "hydra/sweeper" for o in overrides):
        of_plugins = (*of_plugins, "hydra.sweeper.")
    overrides = [o for o in overrides if not o.key_or_group.startswith(of_plugins)]
    folders = [config_dir(), *([Path(options.config_dir).resolve()] if options.config_dir else [])]
    searchpath = ",".join(f"file://{folder}" for folder in folders[1:])
    groups = [o for o in overrides if _is_group(o, folders)]
    values = [o for o in overrides if not _is_group(o, folders)]
    problems = [p for o in groups for p in _choice_problems(o, folders)]
    good_groups = [o for o in groups if not _choice_problems(o, folders)]
    jobs = max([1, *(len(_choices(o)) for o in [*good_groups, *values])])
    fixed = [f"hydra.searchpath=[{searchpath}]"] if searchpath else []
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        for job in range(min(jobs, _MAX_CHECKED_JOBS)):
            problems += _job_problems(config_name, fixed, good_groups, values, job, find_problems)
    raise_problems(problems)


def _parsed(arguments: list[str]) -> list[Override]:
    """InputError that names the overrides that cannot be read, quoted or not."""
    parser = OverridesParser.create()
    overrides, problems = [], []
    for argument in arguments:
        try:
            overrides += parser.parse_overrides([argument])
        except HydraException as error:
            problems.append(f"cannot read the override {argument} ({first_line(error)})")
    raise_problems(problems)
    return overrides


def _job_problems(
    config_name: str,
    fixed: list[str],
    groups: list[Override],
    values: list[Override],
    job: int,
    find_problems: Problems,
) -> list[str]:
    """Mistakes of one job of a sweep; job n takes each override's n-th choice, going round."""
    chosen = fixed + [_assignment(o, job) for o in groups]
    try:
        base = hydra.compose(config_name, overrides=chosen, return_hydra_config=True)
    except (HydraException, ValueError) as error:  # the latter for benchmark=null
        return [str(error).splitlines()[0]]
    problems = []
    for override in values:
        if override.type is OverrideType.CHANGE and not _has_key(base, override.key_or_group):
            problems.append(_unknown_override(base, override.key_or_group))
        else:
            chosen.append(_assignment(override, job))
    problems += _search_problems(base, {o.key_or_group for o in values})
    try:
        composed = hydra.compose(config_name, overrides=chosen)
        composed.paths.run_dir = "."  # known only when the run starts
        missing = missing_keys(composed)
        problems += map(not_set, missing)
        for key in missing:  # so that the rest can be checked in the same go
            OmegaConf.update(composed, key, "?")
        # Problems caused only by the placeholder of a missing value are reported above.
        found = find_problems(to_plain(composed))
        return problems + [p for p in found if not p.startswith(tuple(f"{k}:" for k in missing))]
    except HydraException as error:
        return [*problems, str(error).splitlines()[0]]
    except InputError as error:
        return [*problems, str(error)]


def _search_problems(base: DictConfig, given: set[str]) -> list[str]:
    """Settings that a chosen sweep searches and that this configuration does not have."""
    choices = base.hydra.runtime.choices
    sweep, searched = choices.get("sweep"), base.hydra.sweeper.get("params") or {}
    missing: dict[str, list[str]] = {}  # by group
    for key in searched if sweep else ():
        group = key.partition(".")[0]
        if group not in searched and key not in given and not _has_key(base, key):
            missing.setdefault(group, []).append(key)
    return [
        f"sweep={sweep} searches {' and '.join(keys)}, which {group}={choices.get(group)} does not "
        f"have; search what it has: -m hydra/sweeper=optuna '{group}.NAME=interval(LOW,HIGH)'"
        for group, keys in missing.items()
    ]


def _is_group(override: Override, folders: list[Path]) -> bool:
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _choices(override: Override) -> list[Any]:
    if not override.is_sweep_override():
        return [override.value()]
    value: Any = override.value()
    if isinstance(value, Glob):
        return value.filter(sorted(_members(override.key_or_group, [config_dir()])))
    if isinstance(value, IntervalSweep):
        return [value.start]  # what a search may try first stands for the others
    return list(override.sweep_string_iterator())


def _assignment(override: Override, job: int) -> str:
    """The override with one choice of a sweep; of an interval with its lower end."""
    line = override.input_line
    assert line is not None
    choices = _choices(override)
    if not override.is_sweep_override() or not choices:
        return line
    return line.split("=", 1)[0] + "=" + str(choices[job % len(choices)])


def _choice_problems(override: Override, folders: list[Path]) -> list[str]:
    group = override.key_or_group
    known = _members(group, folders)
    problems = []
    chosen = _choices(override)
    if len(chosen) == 1 and isinstance(chosen[0], list):  # several members: benchmark=[lfw,ijbc]
        chosen = chosen[0]
    chosen = [  # in a sweep lists arrive as words: benchmark=[lfw],[cfp_fp]
        name
        for choice in chosen
        for name in (choice.strip("[]").split(",") if str(choice).startswith("[") else [choice])
    ]
    for choice in chosen:
        if choice is None or override.type is OverrideType.DEL:
            continue
        if str(choice) not in known:
            message = unknown_name(group, str(choice), known)
            if group == "backbone":
                message += f". Any other timm model: backbone=timm backbone.name={choice}"
            problems.append(message)
    return problems


def _members(group: str, folders: list[Path]) -> set[str]:
    return {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}


def _has_key(config: DictConfig, key: str) -> bool:
    node: Any = config
    for part in key.split("."):
        # `in` is false for keys that are there without a value.
        if not OmegaConf.is_dict(node) or part not in list(node):
            return False
        node = node._get_node(part)
    return True


def _unknown_override(config: DictConfig, key: str) -> str:
    renamed = new_key(key)
    if renamed is not None:
        return f"unknown key {key}: it was renamed to {renamed}"
    keys = _all_keys(config)
    parent = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    hint = did_you_mean(key, siblings) or did_you_mean(key, keys)
    return f"unknown key {key}.{hint} (+{key}=... adds a key that is not there)"


def _all_keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, config):
        key = prefix + name
        keys.append(key)
        node = config._get_node(name)
        if OmegaConf.is_dict(node) and not node._is_none():  # type: ignore[union-attr]
            keys += _all_keys(node, f"{key}.")  # type: ignore[arg-type]
    return keys
