"""Opens trained networks: run folders, our checkpoints, bare weights, ONNX, shared folders."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from marginface.data.image_files import is_image_name
from marginface.data.preprocessing import Color
from marginface.inference.description import Description, NetworkInput, network_input
from marginface.inference.model_file import ModelFile
from marginface.inference.onnx import OnnxFile, open_onnx
from marginface.inference.shared_folder import open_shared_folder
from marginface.metrics.thresholds import Threshold
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError, MissingInputError

# Keys of a `backbone` node that `create_backbone` does not take. Written out here, because asking
# the package for them imports timm, which takes seconds and which an ONNX file does not need.
_NOT_OF_THE_NETWORK = ("weights", "color", "family", "mean", "std")


def open_model(
    path: str | Path,
    backbone: dict[str, Any] | None = None,
    color: Color | None = None,
    *,
    checkpoint: str = "best",
    given: Mapping[str, Any] | None = None,
) -> ModelFile:
    """Find out what a file holds.

    Args:
        path: a run folder, a .ckpt, weights (.pth, .pt, .safetensors; those of known projects as
            they are), .onnx, or a shared folder.
        backbone: configuration of the network in a file of bare weights; without it the file is
            compared with networks of known projects.
        color: channel order, where the file does not state it; rgb when not given.
        checkpoint: of a run folder, see `RunFolder.checkpoint`.
        given: further fields of `NetworkInput`, for files that do not state them.

    Raises:
        MissingInputError: no such file.
        InputError: nothing known, or another color order or network than the file states.
    """
    path = Path(path)
    stated = {k: v for k, v in (given or {}).items() if v is not None}
    if color is not None:
        stated["color"] = color
    if path.is_dir() and (path / "config.json").is_file():
        _check_nothing_given(path, backbone, stated)
        return open_shared_folder(path)
    if path.is_dir():
        path = RunFolder(path).checkpoint(checkpoint)
    if not path.is_file():
        raise MissingInputError(
            f"no checkpoint {path}; give a run folder, a .ckpt, .pth, .safetensors or .onnx file"
        )
    if is_image_name(path.name):
        raise InputError(f"{path} is an image, not a model; the model comes first")
    if path.suffix == ".onnx":
        return _from_onnx(path, open_onnx(path), backbone, stated)
    if path.suffix != ".safetensors":
        content = read_checkpoint(path)
        about = content.get("marginface", {})
        if isinstance(about, dict) and about.get("description") is not None:
            if backbone is not None:
                raise InputError(f"{path} states which network it holds; leave backbone= out")
            return _from_checkpoint(path, about, stated)
    return _from_weights(path, backbone, stated)


def _from_onnx(
    path: Path, file: OnnxFile, backbone: dict[str, Any] | None, stated: dict[str, Any]
) -> ModelFile:
    if file.description is not None:
        _check_nothing_given(path, backbone, stated)
        name = (file.description.backbone or {}).get("name", path.stem)
        return ModelFile(path, str(name), {}, file.build, file.description, own=True)
    if backbone is not None:
        raise InputError(f"{path} states which network it holds; leave backbone= out")
    if stated.setdefault("size", file.size) != file.size:
        raise InputError(f"{path} takes images of {file.size} pixels, input.size={stated['size']}")
    assumed = [key for key in ("color", "mean", "std") if key not in stated]
    if file.size % 112 and file.size % 128:
        assumed += ["template"] if "template" not in stated else []
    found = network_input(stated, str(path))
    if assumed:
        rank_zero_warn(
            f"{path} does not say how its images are made. Assumed: {_assumption(assumed, found)}; "
            f"state what is otherwise ({', '.join(f'input.{key}' for key in assumed)}; in commands "
            f"--describe {assumed[0]}=...)"
        )
    return ModelFile(path, path.stem, {}, file.build, Description(input=found))


def _assumption(keys: list[str], found: NetworkInput) -> str:
    words = {
        "color": found.color.upper(),
        "mean": f"mean {found.mean[0]:g}",
        "std": f"standard deviation {found.std[0]:g}",
        "template": f"the template of 112 pixels at the scale of {found.size}",
    }
    return ", ".join(words[key] for key in keys)


def _from_checkpoint(path: Path, about: dict[str, Any], stated: dict[str, Any]) -> ModelFile:
    run: dict[str, Any] = about["description"]
    node = run["config"]["backbone"]
    trained_in = node["color"]
    scaling = {key: node[key] for key in ("mean", "std") if key in node}
    config = {key: value for key, value in node.items() if key not in _NOT_OF_THE_NETWORK}
    if stated.get("color", trained_in) != trained_in:
        raise InputError(
            f"{path} was trained in {trained_in} order; color={stated['color']} would give it "
            "other images than it knows, leave color out"
        )
    _check_nothing_given(path, None, {k: v for k, v in stated.items() if k != "color"})
    # What starting weights it was trained from does not matter any more.
    config["pretrained"] = False
    plugins = run["config"].get("plugins", [])
    adapters = _Adapters.of_run(run["config"])
    folder = RunFolder(path.absolute().parent.parent)
    description = Description(
        backbone=config,
        input=network_input(
            {"color": trained_in, "size": config["image_size"], **scaling}, str(path)
        ),
        thresholds=tuple(Threshold(**t) for t in folder.read_thresholds(about.get("step"))),
        training={
            "head": run["config"].get("head", {}).get("name"),
            "data": run["config"].get("data", {}).get("name"),
            "steps": about.get("step"),
        },
    )
    return ModelFile(
        path,
        config["name"],
        config,
        lambda: _with_plugins(config, path, plugins, adapters),
        description,
        own=True,
    )


def _from_weights(path: Path, backbone: dict[str, Any] | None, stated: dict[str, Any]) -> ModelFile:
    node = backbone or {}
    family = node.get("family")
    others = _of_others(path, stated, family) if backbone is None or family else None
    if others is not None:
        return others
    given = dict(backbone) if backbone is not None else _settings_of_ours(path)
    config = {key: value for key, value in given.items() if key not in _NOT_OF_THE_NETWORK}
    images = {key: node[key] for key in ("color", "mean", "std") if node.get(key) is not None}
    found = network_input({"size": config["image_size"], **images, **stated}, str(path))
    return ModelFile(
        path,
        config["name"],
        config,
        lambda: _with_weights(config, path),
        Description(backbone=config, input=found),
    )


def _settings_of_ours(path: Path) -> dict[str, Any]:
    """What builds a network of bare weights that is one of ours: insightface's of any depth."""
    from marginface.backbones.pretrained import find_pretrained, has_family
    from marginface.backbones.weights import identify_network

    return find_pretrained(path).settings if has_family(path) else identify_network(path)


def _of_others(path: Path, stated: dict[str, Any], family: str | None = None) -> ModelFile | None:
    """A network that another project published; None for those that are built like ours.

    Args:
        family: whose it is, where that was said.
    """
    from marginface.backbones.pretrained import about_of, describe, find_pretrained, is_foreign

    if family is None and not is_foreign(path):
        return None
    found = find_pretrained(path, family)
    about = about_of(path, found)
    describe(path, about)
    kept = {"color": about.color, "mean": about.mean, "std": about.std, "size": about.image_size}
    return ModelFile(
        path,
        about.family,
        dict(about.backbone),
        lambda: found.network,
        Description(
            backbone=dict(about.backbone), input=network_input({**kept, **stated}, str(path))
        ),
        recognized=f"{about.family}, because {about.grounds}",
    )


def _with_plugins(
    config: dict[str, Any], path: Path, plugins: list[str], adapters: "_Adapters | None"
) -> nn.Module:
    """The network; an error names the plugins that may define it, but does not import them.

    What a file names is not run: who trusts it says so.
    """
    import timm

    import marginface.backbones  # noqa: F401  # registers ours

    missing = [name for name in plugins if name not in sys.modules]
    if missing and not timm.is_model(config["name"]):
        raise InputError(
            f"{path} holds the network {config['name']!r} of a run with plugins of its own; add "
            f"plugins=[{','.join(missing)}]"
        )
    return _with_weights(config, path) if adapters is None else adapters.build(config, path)


@dataclass(frozen=True)
class _Adapters:
    """Of a run that trained low-rank adapters: their options, and what they were added to."""

    options: dict[str, Any]
    base: str | None  # the file of weights, where the checkpoint has the adapters only
    family: str | None = None  # of that file, where it was said

    @classmethod
    def of_run(cls, config: dict[str, Any]) -> "_Adapters | None":
        """From the configuration of a run; None where it trained the network itself."""
        node = config.get("finetune") or {}
        if not str(node.get("_target_", "")).endswith(".Lora"):
            return None
        options = {k: v for k, v in node.items() if k in ("rank", "alpha", "dropout", "layers")}
        only = node.get("save") == "adapters"
        backbone = config["backbone"]
        return cls(options, backbone["weights"] if only else None, backbone.get("family"))

    def build(self, config: dict[str, Any], path: Path) -> nn.Module:
        """The network with its adapters merged into its weights."""
        from marginface.backbones import create_backbone, load_backbone_weights
        from marginface.backbones.adapters import AdapterOptions, add_adapters, merge_adapters
        from marginface.backbones.weights import of_network, read_state

        network = create_backbone(**config)
        if self.base is not None:
            try:
                _load_base(network, Path(self.base), self.family)
            except InputError as error:
                raise InputError(
                    f"{path} holds adapters only (finetune.save=adapters), and the network that "
                    f"they belong to cannot be opened: {error}"
                ) from error
        add_adapters(network, AdapterOptions(**self.options))
        if self.base is None:
            load_backbone_weights(network, path)
        else:
            expected = {n: p for n, p in network.named_parameters() if p.requires_grad}
            network.load_state_dict(of_network(read_state(path), expected), strict=False)
        return merge_adapters(network)


def _load_base(network: nn.Module, path: Path, family: str | None) -> None:
    """Give a network the weights that a run began with."""
    from marginface.backbones import load_backbone_weights
    from marginface.backbones.pretrained import find_pretrained, has_family
    from marginface.backbones.weights import fit_weights

    is_ours = path.is_file() and path.suffix == ".ckpt" and "marginface" in read_checkpoint(path)
    if is_ours:
        fit_weights(network, open_model(path).build().state_dict(), path)
    elif family is not None or has_family(path):
        fit_weights(network, find_pretrained(path, family).network.state_dict(), path)
    else:
        load_backbone_weights(network, path)


def _with_weights(config: dict[str, Any], path: Path) -> nn.Module:
    from marginface.backbones import create_backbone, load_backbone_weights

    network = create_backbone(**config)
    load_backbone_weights(network, path)
    return network


def _check_nothing_given(
    path: Path, backbone: dict[str, Any] | None, stated: dict[str, Any]
) -> None:
    if backbone is not None:
        raise InputError(f"{path} states which network it holds; leave backbone= out")
    if stated:
        key = sorted(stated)[0]
        name = key if key == "color" else f"input.{key}"
        raise InputError(f"{path} states how its images are made; leave {name}= out")
