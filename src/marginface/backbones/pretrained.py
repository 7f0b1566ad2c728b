"""`load_pretrained`: a network that somebody published, from its file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor, nn

from marginface.backbones.factory import create_backbone
from marginface.backbones.families import FAMILIES, INSIGHTFACE, About, Family
from marginface.backbones.weights import State, read_states
from marginface.utils.console import rank_zero_print, rank_zero_warn
from marginface.utils.errors import InputError, check_choice

_COUNTER = "num_batches_tracked"  # old files lack it, and only momentum=None reads it


class Found(NamedTuple):
    """A network in a file: whose it is, where it is kept, what builds it, and it itself."""

    family: Family
    nested: str
    prefix: str
    settings: dict[str, Any]
    network: nn.Module

    def grounds(self) -> str:
        """How it was recognized, in words."""
        where = [f"under {self.nested!r}"] if self.nested else []
        where += [f"with the prefix {self.prefix!r}"] if self.prefix else ["without a prefix"]
        return f"its names begin with {self.family.anchor}, kept {', '.join(where)}"


def load_pretrained(path: str | Path, family: str | None = None) -> tuple[nn.Module, About]:
    """A published network in evaluation mode, and what is known of it; both are printed.

    The network takes what the original takes (its color order and scaling, float32) and returns
    the embedding (B, D) as it is, not normalized.

    Args:
        path: .pth, .pt, .ckpt or .safetensors, as published.
        family: whose network it is, where the file cannot tell or is told wrongly: "insightface",
            "magface", "adaface", "cvlface", "evolve", "curricularface", "timm-face", "edgeface",
            "facenet".

    Raises:
        MissingInputError: no such file.
        InputError: no network of a known family, or not of the one that was named; a file that
            runs code when it is read.
    """
    found = find_pretrained(Path(path), family)
    about = about_of(Path(path), found)
    describe(Path(path), about)
    return found.network, about


def describe(path: Path, about: About) -> None:
    """Print what was recognized, on what grounds, and what the file leaves open."""
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (about.mean, about.std))
    rank_zero_print(
        f"{path}: a network of {about.family}, because {about.grounds}; images of "
        f"{about.image_size} pixels in {about.color.upper()}, mean {mean}, standard deviation {std}"
    )
    if about.warning:
        rank_zero_warn(f"{path}: {about.warning}")


def is_foreign(path: Path) -> bool:
    """Whether a file seems to hold a network of a known family that is not built like ours.

    Names and shapes are looked at; insightface's IResNet is ours.
    """
    return _seems_of(path, [family for family in FAMILIES if family is not INSIGHTFACE])


def has_family(path: Path) -> bool:
    """Whether a file seems to hold a network of a known family, by names and shapes."""
    return _seems_of(path, FAMILIES)


def _seems_of(path: Path, families: Iterable[Family]) -> bool:
    return any(
        _has_settings(family, _own_part(state, family, prefix))
        for state in read_states(path).values()
        for family in families
        for prefix in _prefixes(state, family, forced=False)
    )


def _has_settings(family: Family, own: State) -> bool:
    try:
        return family.settings(own) is not None
    except _MISFITS:
        return True  # a damaged one


def _own_part(state: State, family: Family, prefix: str) -> State:
    """The tensors under a prefix that are the network's, under its own names."""
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v for k, v in own.items() if not (family.beside and k.startswith(family.beside))}


def find_pretrained(path: Path, family: str | None = None) -> Found:
    """The network of a known family in a file; InputError where there is none, or several."""
    states = read_states(path)
    if family is not None:
        check_choice("family", family, sorted({known.name for known in FAMILIES}))
    chosen = [known for known in FAMILIES if family in (None, known.name)]
    misfits: list[str] = []
    found = []
    for nested, state in states.items():
        for known in chosen:
            for prefix in _prefixes(state, known, forced=family is not None):
                try:
                    fitted = _fitted(known, state, prefix)
                except _MISFITS as error:
                    misfits.append(f"of {known.name}: {error}")
                else:
                    found += [Found(known, nested, prefix, *fitted)] if fitted else []
    if len(found) > 1:
        found = _most_wanted(found)
    if len(found) > 1:
        places = ", ".join(f.nested + ":" + f.prefix for f in found)
        raise InputError(
            f"{path} holds {len(found)} networks ({places}); save the one that is meant"
        )
    if not found:
        raise InputError(_nothing_found(path, states, family, misfits))
    return found[0]


def about_of(path: Path, found: Found) -> About:
    """What is known of a network, from its family and from files beside its own."""
    family, color, warning = found.family, found.family.color, ""
    if family.name == "cvlface":
        stated = _color_beside(path)
        color = stated or "rgb"
        if stated is None:
            warning = (
                "CVLface keeps the color order in a configuration beside the file (config.json or "
                "model.yaml), which is not there: RGB is assumed; some of its networks take BGR"
            )
    settings = found.settings
    return About(
        family=family.name,
        image_size=settings["image_size"],
        color=color,
        mean=family.mean,
        std=family.std,
        embedding_size=settings["embedding_size"],
        grounds=found.grounds(),
        warning=warning or family.warning,
        backbone={
            "pool": "model",
            "norm": "bn",
            "pretrained": False,
            **settings,
            "dropout": family.dropout,
        },
    )


def _prefixes(state: State, family: Family, *, forced: bool) -> Iterator[str]:
    """What may stand before the names of a network of this family, as whole pieces."""
    for key in state:
        prefix = key.removesuffix(family.anchor)
        is_whole = key.endswith(family.anchor) and (not prefix or prefix.endswith("."))
        # One who names the family knows better than the prefix.
        if is_whole and (forced or family.accepts(prefix)):
            yield prefix


# What building a network of a damaged or of another file raises.
_MISFITS = (KeyError, RuntimeError, ValueError, ZeroDivisionError, InputError)


def _fitted(family: Family, state: State, prefix: str) -> tuple[dict[str, Any], nn.Module] | None:
    """What builds the network, and it itself with the weights; None where it is of another family.

    Raises:
        InputError: the tensors do not fit it; or one of `_MISFITS`.
    """
    own = _own_part(state, family, prefix)
    settings = family.settings(own)
    if settings is None:
        return None
    network = create_backbone(**settings, dropout=family.dropout)
    expected = network.state_dict()
    missing = [k for k in expected if k not in own and not k.endswith(_COUNTER)]
    unexpected = [k for k in own if k not in expected]
    shapes = [k for k in expected if k in own and own[k].shape != expected[k].shape]
    problems = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in (
            (missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"),
        )
        if names
    ]  # fmt: skip
    if problems:
        raise InputError("; ".join(problems))
    network.load_state_dict(own, strict=False)
    return settings, network.eval()


def _most_wanted(found: list[Found]) -> list[Found]:
    """Of several networks of one family in one file, that under the most wanted name."""

    def wish(one: Found) -> int:
        names = one.family.nested
        return names.index(one.nested) if one.nested in names else len(names)

    best = min(map(wish, found))
    return [one for one in found if wish(one) == best]


def _nothing_found(
    path: Path, states: dict[str, dict[str, Tensor]], family: str | None, misfits: list[str]
) -> str:
    names = [name for state in states.values() for name in state][:4]
    whose = f"a network of {family}" if family else "a network of a known family"
    known = ", ".join(sorted({f.name for f in FAMILIES}))
    words = f"{path} does not hold {whose} (known are {known}); its names are {', '.join(names)}"
    if misfits:
        words += f". Nearest {misfits[0]}"
    return words


def _color_beside(path: Path) -> Any:
    """rgb or bgr by CVLface's configuration beside a file; None where there is none."""
    words = None
    for name in ("config.json", "model.yaml", "pretrained_model/model.yaml"):
        file = path.parent / name
        if not file.is_file():
            continue
        try:
            content = yaml.safe_load(file.read_text())  # JSON is YAML, too
        except (ValueError, yaml.YAMLError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        if isinstance(content, dict):
            words = content.get("conf", content).get("color_space", words)
    return str(words).lower() if words else None
