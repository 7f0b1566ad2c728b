"""Where a backbone begins: `backbone.weights`, of ours or of other projects.

A file of a known family says which network it holds, so that network is trained; a file of any
other network has to fit the one that the configuration names.
"""

from pathlib import Path
from typing import Any

from torch import nn

from marginface.backbones import create_backbone, load_backbone_weights
from marginface.backbones.factory import EmbeddingNetwork, image_problems, network_settings
from marginface.backbones.families import INSIGHTFACE, About
from marginface.backbones.pretrained import (
    Found,
    about_of,
    describe,
    find_pretrained,
    has_family,
)
from marginface.backbones.timm_hub import hub_model, is_on_hub
from marginface.backbones.weights import fit_weights
from marginface.data.preprocessing import MIDDLE
from marginface.inference.description import read_description
from marginface.inference.open_model import open_model
from marginface.inference.shared_folder import CONFIG, WEIGHTS
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.utils.console import rank_zero_print, rank_zero_warn
from marginface.utils.errors import InputError, raise_problems

FROM_FILE = "pretrained"  # backbone.name of configs/backbone/pretrained.yaml


def with_network_of_file(node: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """The node of a backbone, completed by what its file of weights says.

    The name, the sizes, the order of colors, mean and std are those of the file where it is of a
    known project, or of a checkpoint of ours and `node` names no other network.

    Args:
        node: of the configuration; `family` says whose the file is, where it cannot tell.
        quiet: print nothing of what was recognized.

    Raises:
        MissingInputError: no such file.
        InputError: a file that says nothing, and a node that names no network; or they disagree.
    """
    raise_problems(image_problems(node))
    weights, family, name = node["weights"], node.get("family"), str(node.get("name"))
    if is_on_hub(name) or (weights is not None and is_on_hub(weights)):
        return _node_of_hub(node)
    if weights is None:
        if name == FROM_FILE or family is not None:
            key = "name=pretrained" if name == FROM_FILE else f"family={family}"
            raise InputError(f"backbone.{key} needs a file: add backbone.weights=FILE")
        return node
    path = Path(weights)
    if path.is_dir():
        raise InputError(
            f"backbone.weights={path} is a folder; name the file, such as "
            f"{path / 'checkpoints' / 'best.ckpt'}"
        )
    ours = _node_of_ours(path)
    if ours is not None:
        return _with_checkpoint_of_ours(path, node, ours, quiet)
    if family is None and not has_family(path):
        if name == FROM_FILE:
            raise InputError(
                f"{path} is of no known project; name its network with backbone=<name>, such as "
                "backbone=iresnet50"
            )
        return node
    found = find_pretrained(path, family)
    if found.family is INSIGHTFACE and name.startswith("iresnet"):
        return node  # named as it is: a file that does not fit is an error when it is loaded
    about = about_of(path, found)
    if not quiet:
        describe(path, about)
    if name not in (FROM_FILE, about.backbone["name"]) and not quiet:
        rank_zero_warn(
            f"backbone.name={name} gives way to the network of {path}: {about.backbone['name']} "
            f"({about.family}); backbone={FROM_FILE} says so without this warning"
        )
    own = {
        "color": _color(path, node, about),
        "mean": [*map(float, about.mean)],
        "std": [*map(float, about.std)],
    }
    return _completed(path, node, {**about.backbone, **own})


def load_starting_weights(backbone: nn.Module, node: dict[str, Any]) -> None:
    """Give a network the weights that `node` names; see `with_network_of_file`.

    Raises:
        InputError: a file that does not fit.
    """
    path = Path(node["weights"])
    if is_on_hub(node["weights"]):
        theirs = create_backbone(
            **network_settings(node) | {"name": node["weights"], "pretrained": True}
        )
        has_neck = isinstance(backbone, EmbeddingNetwork)  # a new one
        inner = backbone.get_submodule("model") if has_neck else backbone
        inner.load_state_dict((theirs.get_submodule("model") if has_neck else theirs).state_dict())
        rank_zero_print(f"backbone: weights of {node['weights']}")
        return
    found = _found(path, node)
    if found is not None:
        backbone.load_state_dict(found.network.state_dict())
    elif _node_of_ours(path) is not None:
        # Opened as a model: what a run trained may be adapters, which are merged then.
        opened = open_model(path.parent if path.name == WEIGHTS else path)
        fit_weights(backbone, opened.build().state_dict(), path)
    else:
        load_backbone_weights(backbone, path)
    rank_zero_print(f"backbone: weights of {path}")


def _node_of_hub(node: dict[str, Any]) -> dict[str, Any]:
    """The node of a network on the Hub, from here on without it: timm's name and arguments."""
    name, weights = str(node["name"]), node["weights"]
    if is_on_hub(name):
        if not node.get("pretrained"):
            raise InputError(
                f"backbone.name={name} has weights on the Hub: add backbone.pretrained=true"
            )
        for key in ("weights", "family"):
            if node.get(key) is not None:
                raise InputError(
                    f"backbone.name={name} says which weights; leave backbone.{key} out"
                )
        weights = name
    found = hub_model(weights)
    if name not in (weights, found.architecture):
        raise InputError(
            f"backbone.weights={weights} is of a network on the Hub: write backbone=timm "
            f"backbone.name={weights} backbone.pretrained=true"
        )
    return {"mean": found.mean, "std": found.std} | node | {
        "name": found.architecture, "pretrained": False, "weights": weights,
        "model": found.arguments | (node.get("model") or {}),
    }  # fmt: skip


def _found(path: Path, node: dict[str, Any]) -> Found | None:
    """The network of a known project in a file, unless it is one that is built like ours."""
    if _node_of_ours(path) is not None or (node.get("family") is None and not has_family(path)):
        return None
    found = find_pretrained(path, node.get("family"))
    return None if found.family is INSIGHTFACE else found


def _node_of_ours(path: Path) -> dict[str, Any] | None:
    """The node of a backbone of ours, from its checkpoint or from the folder that was exported."""
    if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        return _node_of_folder(path.parent / CONFIG)
    if path.suffix != ".ckpt" or not path.is_file():
        return None
    about = read_checkpoint(path).get("marginface")
    run = about.get("description") if isinstance(about, dict) else None
    if not isinstance(run, dict):
        return None
    kept = run.get("config", {}).get("backbone")
    if not isinstance(kept, dict):
        raise InputError(f"{path} does not say which backbone it was trained with")
    # Its weights are all in the file.
    own = {key: value for key, value in kept.items() if key not in ("weights", "family")}
    return own | {"pretrained": False} if "pretrained" in own else own


def _node_of_folder(config: Path) -> dict[str, Any] | None:
    """From a shared folder; None where another project's configuration is beside the weights."""
    text = config.read_text(errors="replace")
    if '"marginface"' not in text:
        return None
    description = read_description(text, config)
    if description.backbone is None:
        return None
    taken = description.input
    images = {"color": taken.color, "mean": [*taken.mean], "std": [*taken.std]}
    return {**description.backbone, **images}


def _with_checkpoint_of_ours(
    path: Path, node: dict[str, Any], ours: dict[str, Any], quiet: bool
) -> dict[str, Any]:
    if node.get("family") is not None:
        raise InputError(f"{path} is a checkpoint of ours; leave backbone.family out")
    if node["name"] != FROM_FILE:
        if not quiet:
            _warn_of_images(path, node, ours)
        return node  # a file that does not fit is an error when it is loaded
    if node["color"] == "bgr" and ours["color"] == "rgb":
        raise InputError(f"{path} was trained in rgb; leave backbone.color out")
    return _completed(path, node, ours)


def _warn_of_images(path: Path, node: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, usual in (("color", "rgb"), ("mean", [*MIDDLE]), ("std", [*MIDDLE])):
        before, now = ours.get(key, usual), node.get(key, usual)
        if before != now:
            rank_zero_warn(
                f"{path} was trained with backbone.{key}={before}, and here it is {now}: the "
                "network will see other images than it knows"
            )


def _color(path: Path, node: dict[str, Any], about: About) -> str:
    """The order of colors; rgb in a node is the default and says nothing."""
    if node["color"] == "rgb" or about.color == "bgr":
        return about.color
    if about.family == "cvlface" and about.warning:
        return "bgr"  # nothing but the user says it
    raise InputError(
        f"{path}: its network ({about.family}) takes RGB, and backbone.color is bgr; leave it out"
    )


# What a node may say beside a file that decides; `model` adds arguments of the network.
_BESIDE_FILE = ("name", "weights", "color", "family", "dropout", "model", "image_size",
                "embedding_size", "mean", "std")  # fmt: skip


def _completed(path: Path, node: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The node of the file's network, unless what was given says otherwise.

    Args:
        theirs: what the file says.
    """
    from_file = node["name"] == FROM_FILE
    others = sorted(node.keys() - set(_BESIDE_FILE)) if from_file else []
    if others:
        raise InputError(
            f"backbone.{others[0]}={node[others[0]]}: {path} says which network it holds; leave it "
            "out"
        )
    # Of another backbone's configuration the sizes of embeddings mean nothing.
    compared = ("image_size", "mean", "std", *(["embedding_size"] if from_file else []))
    for key in compared:
        given, needed = node.get(key), theirs.get(key)
        if given is not None and needed is not None and given != needed:
            text = str(needed).replace(" ", "")
            raise InputError(
                f"{path}: its network has {key}={text}, and backbone.{key} is {given}; set "
                f"backbone.{key}={text}"
            )
    found = theirs | {key: node[key] for key in ("weights", "family") if key in node}
    if from_file and node.get("model"):
        found["model"] = {**(theirs.get("model") or {}), **node["model"]}
    if node.get("dropout") is not None:
        found["dropout"] = node["dropout"]
    return found
