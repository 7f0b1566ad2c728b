"""The configuration: where it is, whether it is right, and the objects it describes.

`build` is the only caller of hydra.utils.instantiate. `config_problems` finds all mistakes without
building anything, so they can be reported together before data is touched.
"""

import inspect
import os
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import hydra
import timm
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

import marginface.backbones  # noqa: F401  (registers our networks with timm)
from marginface.backbones.factory import create_backbone, unknown_backbone
from marginface.errors import InputError, did_you_mean, unknown_name
from marginface.heads import create_head, head_class, list_heads
from marginface.runinfo import flatten

# The top of every training configuration, with its types; groups are checked by what they build.
TRAIN_KEYS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "resume": str,
    "validate_untrained": bool,
    "learning_rate_per": int | None,
    "decay_vectors": bool,
    "channels_last": bool,
    "compile": bool,
    "gradient_checkpointing": bool,
    "asynchronous_checkpoints": bool,
    "keep_freed_memory": bool,
    "data": dict,
    "augmentation": dict,
    "backbone": dict,
    "head": dict,
    "classifier": dict,
    "optimizer": dict,
    "scheduler": dict,
    "trainer": dict,
    "callbacks": dict | None,
    "logger": dict | None,
    "paths": dict,
}
# What the code passes in; a configuration must not.
_PROVIDED = {
    "head": {"embedding_size", "num_classes"},
    "optimizer": {"params"},
    "scheduler": {"total_steps", "steps_per_epoch"},
}
_BACKBONE_EXTRAS: dict[str, Any] = {"weights": str | None, "color": typing.Literal["rgb", "bgr"]}


_INTERACTIVE = ("bash", "sh", "interactive")  # many runs in one job


def _run_stamp(now: str) -> str:
    """`now`, or under torchrun and SLURM what is the same in all processes of a job.

    A SLURM job keeps its number when it is requeued, so it goes on in the same folder.
    """
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    slurm = os.environ.get("SLURM_JOB_ID")
    if job is None and slurm is not None and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        step = os.environ.get("SLURM_STEP_ID")
        return f"slurm-{slurm}" if step is None else f"slurm-{slurm}-{step}"
    if job is None:
        return now
    # Without --rdzv-id or --standalone the id is "none", but they share their parent process.
    return f"torchrun-{os.getppid()}" if job == "none" else job


OmegaConf.register_new_resolver("run_stamp", _run_stamp, replace=True)


def config_dir() -> Path:
    """The checkout's configs/ when there is one, the copy in the wheel otherwise."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / "configs"
    return checkout if checkout.is_dir() else here / "configs"


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings, numbers and None.

    Raises:
        InputError: a value that is not set, or a reference to one that is not there.
    """
    raise_problems([not_set(key) for key in missing_keys(config)])
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(str(error).splitlines()[0]) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def missing_keys(config: DictConfig) -> list[str]:
    """Keys whose value is still ???."""
    # OmegaConf.missing_keys resolves references on its way and fails at those to a missing value.
    unresolved = flatten(OmegaConf.to_container(config, resolve=False))
    return sorted(key for key, value in unresolved.items() if value == "???")


def not_set(key: str) -> str:
    """The message for a key without a value."""
    return f"{key} is not set; add {key}=<value>"


def build(node: dict[str, Any], **provided: Any) -> Any:
    """The object a `_target_` node describes; with `_partial_` a function that builds it."""
    try:
        return hydra.utils.instantiate(node, **provided, _convert_="all")
    except InstantiationException as error:
        # Hydra wraps what a constructor raised, once for each level of nesting.
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        if isinstance(cause, ModuleNotFoundError):
            raise InputError(f"{node['_target_']} needs a package: {cause}") from error
        raise cause or error from None


def check_config(config: dict[str, Any]) -> None:
    """InputError with all mistakes of a resolved training configuration."""
    raise_problems(config_problems(config))


def raise_problems(problems: list[str]) -> None:
    """One InputError for all of them; nothing for none."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{len(problems)} mistakes in the configuration:\n{lines}")


def config_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with a resolved training configuration, in words; empty when nothing is."""
    problems = mapping_problems("", config, TRAIN_KEYS, required=set(TRAIN_KEYS))
    if problems:
        return problems
    if config["seed"] < 0:
        problems.append(f"seed must not be negative, got {config['seed']}")
    problems += _head_problems(config["head"])
    problems += backbone_problems(config["backbone"])
    for group in ("data", "augmentation", "optimizer", "scheduler", "trainer"):
        problems += target_problems(group, config[group])
    problems += _classifier_problems(config["classifier"])
    for group in ("callbacks", "logger"):
        for name, node in (config[group] or {}).items():
            if node is not None:
                problems += target_problems(f"{group}.{name}", node)
    return problems


def _head_problems(node: dict[str, Any]) -> list[str]:
    name = node.get("name")
    if name not in list_heads():
        return [unknown_name("head", str(name), list_heads())]
    parameters = {key: value for key, value in node.items() if key != "name"}
    problems = _call_problems("head", head_class(name), parameters)
    if problems:
        return problems
    try:
        # The smallest head of its kind: ranges are checked where they are defined.
        create_head(name, embedding_size=1, num_classes=2, **parameters)
    except InputError as error:
        problems.append(str(error))
    return problems


def _classifier_problems(node: dict[str, Any]) -> list[str]:
    problems = target_problems("classifier", node)
    if problems:
        return problems
    try:
        build(node)  # a few numbers: ranges are checked where they are defined
    except InputError as error:
        problems.append(str(error))
    return problems


def backbone_problems(node: dict[str, Any]) -> list[str]:
    """What is wrong with the node of a backbone."""
    name = node.get("name")
    if not timm.is_model(str(name)):
        return [unknown_backbone(str(name))]
    extras = {key: node[key] for key in node if key in _BACKBONE_EXTRAS}
    arguments = {key: node[key] for key in node if key not in _BACKBONE_EXTRAS}
    return _call_problems(
        "backbone", create_backbone, arguments, also=set(_BACKBONE_EXTRAS)
    ) + mapping_problems("backbone", extras, _BACKBONE_EXTRAS, required=set(_BACKBONE_EXTRAS))


def target_problems(where: str, node: Any) -> list[str]:
    """What is wrong with a node that stands for an object."""
    if not isinstance(node, dict) or "_target_" not in node:
        return [f"{where} must be a mapping with a _target_, got {node!r}"]
    try:
        target = hydra.utils.get_object(node["_target_"])
    except Exception as error:  # an import can fail in any way
        return [f"{where}._target_: cannot import {node['_target_']!r} ({error})"]
    arguments = {key: value for key, value in node.items() if not _is_hydra_key(key)}
    problems = _call_problems(where, target, arguments)
    for key, value in arguments.items():
        if isinstance(value, dict) and "_target_" in value:
            problems += target_problems(f"{where}.{key}", value)
    return problems


def _call_problems(
    where: str, target: Callable[..., Any], arguments: dict[str, Any], also: Collection[str] = ()
) -> list[str]:
    """Unknown, missing and mistyped arguments of a call."""
    parameters, hints = _parameters(target)
    kinds = {p.kind for p in parameters.values()}
    known = {
        name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    } - _PROVIDED.get(where, set())
    problems = []
    for name, value in arguments.items():
        if name in known:
            if name in hints:
                problems += _type_problems(f"{where}.{name}", value, hints[name])
        elif inspect.Parameter.VAR_KEYWORD not in kinds:
            problems.append(_unknown_key(where, name, known.union(also)))
    for name in sorted(known - arguments.keys()):
        if parameters[name].default is inspect.Parameter.empty:
            problems.append(f"{where}.{name} is missing; add {where}.{name}=<value>")
    return problems


def _parameters(
    target: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Parameters of a call and their types; keywords that a TypedDict lists are written out."""
    parameters = dict(inspect.signature(target).parameters)
    parameters.pop("self", None)
    hints = _type_hints(target)
    for name, parameter in list(parameters.items()):
        if typing.get_origin(hints.get(name)) is typing.Unpack:
            (options,) = typing.get_args(hints.pop(name))
            hints |= typing.get_type_hints(options, include_extras=True)
            del parameters[name]
            for key in options.__annotations__:
                parameters[key] = inspect.Parameter(key, parameter.KEYWORD_ONLY, default=None)
    return parameters, hints


def mapping_problems(
    where: str, values: dict[str, Any], types: dict[str, Any], required: set[str]
) -> list[str]:
    """Unknown, missing and mistyped keys of a mapping."""
    dot = f"{where}." if where else ""
    problems = [_unknown_key(where, key, types) for key in values if key not in types]
    problems += [f"{dot}{key} is missing" for key in sorted(required - values.keys())]
    for key, value in values.items():
        if key in types:
            problems += _type_problems(f"{dot}{key}", value, types[key])
    return problems


def _unknown_key(where: str, key: str, known: typing.Iterable[str]) -> str:
    names = sorted(known)
    dot = f"{where}." if where else ""
    return (
        f"unknown key {dot}{key}.{did_you_mean(key, names)} "
        f"{where or 'the configuration'} has: {', '.join(names)}"
    )


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return {}


def _type_problems(where: str, value: Any, hint: Any) -> list[str]:
    if isinstance(value, dict) and "_target_" in value:
        return []  # stands for an object; it is checked by itself
    if hint in (list[str] | None, list[str]) and isinstance(value, str):
        return [f"{where}: expected a list, got {value!r}; write {where}=[{value}]"]
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:
        try:
            adapter = TypeAdapter(hint)  # models bring their own config
        except Exception:  # a type pydantic cannot describe says nothing about YAML values
            return []
    try:
        result = adapter.validate_python(value)
    except ValidationError as error:
        reasons = sorted({e["msg"] for e in error.errors() if "instance of" not in e["msg"]})
        return [f"{where}: got {value!r}. {'; '.join(reasons)}"]
    if not _same_kind(value, result):
        return [
            f"{where}: got {value!r}, a {type(value).__name__}, where a "
            f"{type(result).__name__} is expected"
        ]
    return []


def _same_kind(value: Any, result: Any) -> bool:
    """Whether pydantic kept the kind of a scalar; the value itself is used, not its conversion."""
    if isinstance(value, str):
        return isinstance(result, str | Path)
    if isinstance(value, bool) or isinstance(result, bool):
        return type(value) is type(result)
    if isinstance(value, float):
        return isinstance(result, float)
    return True


def _is_hydra_key(key: str) -> bool:
    return key.startswith("_") and key.endswith("_")
