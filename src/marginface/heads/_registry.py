"""Names to margins: `register_head`, `list_heads`, `create_head`."""

import fnmatch
import inspect
from collections.abc import Callable
from typing import Any

from marginface.classifier.centers import ClassCenters, check_sizes
from marginface.classifier.losses import ClassificationLoss, LossConfig, create_loss
from marginface.classifier.options import ClassifierOptions
from marginface.classifier.sharding import Shard
from marginface.heads._head import MarginHead
from marginface.heads._margin import Margin
from marginface.utils.arguments import call_problems, check_arguments
from marginface.utils.errors import InputError, unknown_name

_SIZE = "num_classes"  # what a margin may ask for in its constructor; a user does not give it
_MARGINS: dict[str, type[Margin]] = {}


def register_head(name: str) -> Callable[[type[Margin]], type[Margin]]:
    """Class decorator that makes a margin known under `name`; a name can be taken only once."""

    def register(margin: type[Margin]) -> type[Margin]:
        if name in _MARGINS:
            raise ValueError(f"head {name!r} is already registered by {_MARGINS[name].__module__}")
        margin.name = name
        _MARGINS[name] = margin
        return margin

    return register


def list_heads(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_MARGINS, pattern))


def _unknown_head(name: str) -> str:
    known = unknown_name("head", name, _MARGINS)
    return f"{known}. Heads of your own are made known by plugins=[<module>]"


def margin_class(name: str) -> type[Margin]:
    """The class registered under `name`; InputError names the nearest known one."""
    if name not in _MARGINS:
        raise InputError(_unknown_head(name))
    return _MARGINS[name]


def head_defaults(name: str) -> dict[str, Any]:
    """What a configuration can set of a head, with the defaults."""
    margin = margin_class(name)
    parameters = inspect.signature(margin).parameters
    defaults = {key: p.default for key, p in parameters.items() if key != _SIZE}
    return defaults if margin.has_own_loss else {**defaults, "loss": "cross_entropy"}


def create_margin(
    name: str, *, num_classes: int, loss: LossConfig | None = None, **parameters: Any
) -> tuple[Margin, ClassificationLoss]:
    """Build the margin `name` and its loss, which is all of a head but the class centers.

    Args:
        num_classes: C; some margins and losses begin with a value that depends on it.
        loss: see `create_head`.
        parameters: of the margin.

    Raises:
        InputError: an unknown head or parameter, a value out of range, a loss that does not fit.
    """
    margin_type = margin_class(name)
    given = parameters if loss is None else {**parameters, "loss": loss}
    check_arguments(f"head {name!r}", margin_type, given, known=head_defaults(name))
    if _SIZE in inspect.signature(margin_type).parameters:
        parameters[_SIZE] = num_classes
    margin = margin_type(**parameters)
    config = margin.default_loss(num_classes) if loss is None else loss
    made_loss = create_loss(config, num_classes=num_classes, scale=float(margin.scale))
    margin.check_loss(made_loss)
    return margin, made_loss


def create_head(
    name: str,
    *,
    embedding_size: int,
    num_classes: int,
    loss: LossConfig | None = None,
    classifier: ClassifierOptions | None = None,
    seed: int = 0,
    shard: Shard | None = None,
    **parameters: Any,
) -> MarginHead:
    """Build the head `name`: its margin, its class centers and its loss.

    Args:
        embedding_size: D, length of the embeddings.
        num_classes: C, number of identities, at least 2.
        loss: "cross_entropy", "bce", "circle" or "alpha_divergence", or a mapping with `name` and
            parameters of the loss, see `marginface.classifier.losses`; None: that of the paper.
        classifier: how the loss over all classes is computed.
        seed: of the classes that are sampled.
        shard: the classes whose centers this process holds; None: all.
        parameters: of the margin, see `marginface heads`.

    Raises:
        InputError: an unknown head or parameter, a value out of range, parts that do not fit.
    """
    check_sizes(num_classes, embedding_size)
    margin, made_loss = create_margin(name, num_classes=num_classes, loss=loss, **parameters)
    centers = ClassCenters(
        num_classes,
        embedding_size,
        centers_per_class=margin.centers_per_class,
        shard=shard,
        options=classifier,
        seed=seed,
    )
    return MarginHead(margin, centers, made_loss)


def head_problems(node: dict[str, Any]) -> list[str]:
    """What is wrong with the `head` group of a configuration, in words."""
    name = node.get("name")
    if name not in list_heads():
        return [_unknown_head(str(name))]
    parameters = {key: value for key, value in node.items() if key != "name"}
    if not margin_class(name).has_own_loss:
        parameters.pop("loss", None)  # checked below, by what makes it
    problems = call_problems(
        "head", margin_class(name), parameters, provided={_SIZE}, also=head_defaults(name)
    )
    if problems:
        return problems
    try:
        # The smallest head of its kind: ranges are checked where they are defined.
        create_head(**node, embedding_size=1, num_classes=2)
    except InputError as error:
        problems.append(str(error))
    return problems
