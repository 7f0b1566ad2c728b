"""The keys of an evaluation's configuration, and what is wrong with one."""

from typing import Annotated, Any, Literal

from pydantic import Field

from marginface.backbones.factory import backbone_problems
from marginface.config.instantiate import target_problems
from marginface.utils.arguments import Probability, WholeNumber, mapping_problems
from marginface.utils.errors import InputError
from marginface.utils.plugins import load_plugins

EVALUATE_KEYS: dict[str, Any] = {
    "checkpoint": str,
    "run": str | None,
    "gallery_checkpoint": str | None,
    "input": dict | None,
    "benchmark": dict,
    "plugins": list[str],
    "backbone": dict | None,
    "color": Literal["rgb", "bgr"] | None,
    "flip": bool,
    "precision": Literal["32-true", "bf16-mixed", "16-mixed"],
    "devices": str | list[str],
    "batch_size": WholeNumber,
    "num_workers": Annotated[int, Field(ge=0)],
    "cache": bool,
    "fmrs": list[Probability],
    "thumbnails": bool,
    "paths": dict,
}


def evaluation_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with a resolved configuration, in words; empty when nothing is."""
    problems = mapping_problems(
        "", config, EVALUATE_KEYS, required=set(EVALUATE_KEYS) - {"plugins"}
    )
    if problems:
        return problems
    try:
        load_plugins(config.get("plugins", []))
    except InputError as error:
        return [str(error)]
    if not config["checkpoint"]:
        problems.append("checkpoint is empty; give a run folder or a file")
    if config["checkpoint"] in ("best", "last") and not config["run"]:
        problems.append(
            f"checkpoint={config['checkpoint']} of which run? Give its folder as well, run=<folder>"
        )
    elif config["run"] and config["checkpoint"] not in ("best", "last"):
        problems.append(
            f"run={config['run']} goes with checkpoint=best or checkpoint=last, got "
            f"checkpoint={config['checkpoint']}"
        )
    node = config["backbone"]
    if node is not None and node.keys() != {"family"}:  # that alone says whose a file is
        problems += backbone_problems(node)
    if not config["benchmark"]:
        problems.append("benchmark names nothing to evaluate on; benchmark=[lfw,ijbc]")
    for name, node in config["benchmark"].items():
        problems += target_problems(f"benchmark.{name}", node)
    return problems
