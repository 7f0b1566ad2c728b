"""The card of a shared model: what it is, how good it is, what it must not be used for."""

from dataclasses import dataclass

import yaml

from marginface.inference.description import Description
from marginface.metrics.thresholds import Threshold
from marginface.metrics.verification import rate_name

_SHOWN = ("accuracy", "auc", "eer", "tar@1e-3", "tar@1e-4", "rank1", "tpir@1e-2")
_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Card:
    """What a card is made from.

    Attributes:
        description: of the model.
        metrics: result.json of an evaluation, or nothing.
        license: SPDX id, or "unknown".
        with_head: whether class centers are in the folder.
        parameters: numbers in the weights.
    """

    description: Description
    metrics: dict[str, float]
    license: str
    with_head: bool
    parameters: int


def card_text(card: Card) -> str:
    """README.md, with the metadata that model hubs read at its top."""
    return f"---\n{_metadata(card)}---\n\n" + "\n\n".join(
        [
            f"# {_name(card)}: a face-recognition network",
            _what(card),
            _use(),
            _accuracy(card),
            _thresholds(card.description.thresholds),
            _limits(card),
        ]
    ) + "\n"  # fmt: skip


def _metadata(card: Card) -> str:
    sets: dict[str, list[dict[str, object]]] = {}
    for key, value in card.metrics.items():
        of_set, _, metric = key.partition("/")
        if metric in _SHOWN:
            entry: dict[str, object] = {"type": metric, "value": round(float(value), 6)}
            sets.setdefault(of_set, []).append(entry)
    content: dict[str, object] = {
        "license": card.license,
        "library_name": "marginface",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["face-recognition", "face-verification", "biometrics"],
    }
    if sets:
        task = {"type": "face-verification", "name": "Face verification"}
        results = [
            {"task": task, "dataset": {"type": name, "name": name}, "metrics": found}
            for name, found in sets.items()
        ]
        content["model-index"] = [{"name": _name(card), "results": results}]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _name(card: Card) -> str:
    return str((card.description.backbone or {}).get("name", "network"))


def _what(card: Card) -> str:
    d = card.description
    data = d.training.get("data") or "not stated"
    license = card.license
    if license == "unknown":
        license = "unknown. Ask whoever trained it before you use it"
    rows = {
        "network": f"{_name(card)}, {card.parameters / 1e6:.1f} million numbers, {d.precision}",
        "input": f"{d.input.size}x{d.input.size} aligned faces, {d.input.color.upper()}, "
        f"(x - {_values(d.input.mean)}) / {_values(d.input.std)}",
        "template": ", ".join(f"({x:.1f}, {y:.1f})" for x, y in d.input.template),
        "mirror image": "added" if d.flip else "not added",
        "detector": d.detector.name,
        "head": str(d.training.get("head") or "not stated"),
        "training data": str(data),
        "license of the weights": license,
        "digest": d.digest,
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def _values(numbers: tuple[float, ...]) -> str:
    return f"{numbers[0]:g}" if len(set(numbers)) == 1 else str(tuple(numbers))


def _use() -> str:
    return (
        '```python\nimport marginface\nmodel = marginface.load("this folder")\n'
        'print(model.verify("a.jpg", "b.jpg", fmr=1e-3))\n```'
    )


def _accuracy(card: Card) -> str:
    rows = [
        (key, value, card.metrics.get(f"{key}/low"), card.metrics.get(f"{key}/high"))
        for key, value in card.metrics.items()
        if key.partition("/")[2] in _SHOWN
    ]
    if not rows:
        return "## Accuracy\n\nNot measured: exported without an evaluation."
    lines = [
        f"| {key} | {_percent(value)} | {_percent(low)} to {_percent(high)} |"
        for key, value, low, high in rows
    ]
    return "## Accuracy\n\n| metric | value | 95 % interval |\n|---|---|---|\n" + "\n".join(lines)


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.2f} %"


def _thresholds(thresholds: tuple[Threshold, ...]) -> str:
    shown = [t for t in thresholds if any(abs(t.fmr / rate - 1) < 1e-6 for rate in _RATES)]
    if not shown:
        return "## Thresholds\n\nNone: evaluate the model before you decide anything with it."
    lines = [
        f"| {t.set} | {rate_name(t.fmr)} | {t.cosine:.4f} | {t.low:.4f} to {t.high:.4f} | "
        f"{t.false_matches:,} of {t.impostors:,} | {'yes' if t.supported else 'no'} |"
        for t in shown
    ]
    return (
        "## Thresholds\n\nTwo faces count as one person from this cosine on. A false match rate is "
        "supported when 30 false matches are expected (rule of 30).\n\n"
        "| set | FMR | cosine | 95 % interval | false matches | supported |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(lines)
    )


def _limits(card: Card) -> str:
    head = (
        "\n- `head.safetensors` holds class centers: templates of the people trained on. Share it "
        "only where their data may be shared."
        if card.with_head
        else ""
    )
    return (
        "## Intended use and limits\n\n"
        "- It compares faces. It does not tell a living person from a photograph or a mask (no "
        "liveness), nor age, sex or origin.\n"
        "- Embeddings are biometric data: in many countries consent, a purpose and a date of "
        "deletion are required. Faces can be reconstructed from them.\n"
        "- Error rates differ between groups of people and kinds of photographs. Measure them on "
        "yours; the rates above hold for the sets they name.\n"
        "- In a search among N people false matches grow about N times; use a threshold for "
        f"identification (`marginface identify`), not the one of two photographs.{head}"
    )
