"""Facts about every registered head, read from its class, and docs/heads.md."""

import inspect
import re
from dataclasses import dataclass
from typing import Any

from marginface.heads._registry import create_head, head_defaults, list_heads, margin_class


@dataclass(frozen=True)
class HeadInfo:
    """One head, in words."""

    name: str
    paper: str  # first line of the module's docstring
    year: int | None
    summary: str  # first line of the class's docstring: the formula
    notes: str  # the rest of it
    defaults: dict[str, Any]
    gradient: str
    needs_norm: bool
    changes_negatives: bool
    falls_with_angle: bool
    loss: str
    state: tuple[str, ...]


def head_info(name: str) -> HeadInfo:
    """Everything about the head `name`."""
    margin = margin_class(name)
    head = create_head(name, embedding_size=2, num_classes=3)
    module = inspect.getmodule(margin)
    paper = (inspect.getdoc(module) or "").split("\n")[0] if module else ""
    year = re.search(r"\b((?:19|20)\d\d)\.$", paper)
    summary, _, notes = (inspect.getdoc(margin) or "").partition("\n\n")
    return HeadInfo(
        name,
        paper,
        int(year[1]) if year else None,
        " ".join(summary.split()),
        notes.strip(),
        head_defaults(name),
        head.margin.margin_gradient,
        margin.needs_norm,
        margin.changes_negatives,
        margin.falls_with_angle,
        re.sub(r"(?<!^)(?=[A-Z])", " ", type(head.loss).__name__).lower(),
        tuple(key for key, _ in head.margin.named_buffers()),
    )


def heads_page() -> str:
    """docs/heads.md: one table of all heads, then a section for each."""
    infos = [head_info(name) for name in list_heads()]
    table = "\n".join(
        f"| [{info.name}](#{info.name}) | {info.year or ''} | {info.gradient} | {info.loss} "
        f"| {_yes(info.changes_negatives)} | {_yes(info.needs_norm)} "
        f"| {', '.join(info.state)} |"
        for info in infos
    )
    sections = "\n\n".join(_section(info) for info in infos)
    return f"{_INTRODUCTION}\n{_TABLE_HEAD}\n{table}\n\n{sections}\n"


def _section(info: HeadInfo) -> str:
    parameters = ", ".join(f"`{key}={value}`" for key, value in info.defaults.items())
    facts = [
        f"- {info.paper}",
        f"- {info.summary}",
        f"- Gradient of the margin: {info.gradient}. Loss: {info.loss}. "
        f"State: {', '.join(info.state) or 'none'}."
        + (" f falls strictly with the angle." if info.falls_with_angle else ""),
        f"- Parameters: {parameters}",
    ]
    notes = f"\n\n{info.notes}" if info.notes else ""
    picture = f"![Curves of {info.name}](images/heads/{info.name}.svg)"
    return f"## {info.name}\n\n" + "\n".join(facts) + notes + f"\n\n{picture}"


def _yes(value: bool) -> str:
    return "yes" if value else ""


_TABLE_HEAD = """\
| head | year | margin gradient | loss | changes negatives | needs norm | state |
|---|---|---|---|---|---|---|"""

_INTRODUCTION = """\
# Heads

`make docs` writes this page from the code, and a test checks that it is current.
`marginface heads show NAME --set k=0.6` draws any head with any parameters,
`marginface heads advise NAME --classes 93431` prints, for a number of classes, the first loss of an
untrained network, the angle to the own class center at which the softmax gives it the probability
p = 0.5, and the least scale that reaches p = 0.9.

A head is a margin over class centers, with a loss. Three choices are independent of each other:

- **the curve**: f replaces the cosine of the own class; some heads also change those of the others;
- **the gradient** (`head.margin_gradient`): `straight_through` takes df/dcos as 1, so the margin is
  a constant to autograd; `exact` differentiates the curve. The default is that of the official code
  where there is one;
- **the loss over logits** (`head.loss`): `cross_entropy`, `bce`, `circle`, `alpha_divergence`.
  `head=x2softmax head.loss=alpha_divergence` is a sparse variant: experimental, derived here, not
  from a paper. Parameters of a loss: `'head.loss={name: alpha_divergence, alpha: 1.5}'`.

theta is the angle to the own center, c the cosine of another, s the scale, |x| the norm of the
embedding. Curves are drawn at the default parameters, next to no margin (normface) and ArcFace 0.5.
The state of a head (t, mean, scale, step, key) is kept in buffers. It advances once per optimizer
step from the whole global batch, is saved with the checkpoint, and is equal on all processes.
"""
