"""What a family of foreign networks is: how its files are recognized, what its images are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

State = Mapping[str, Tensor]
Color = Literal["rgb", "bgr"]
Three = tuple[float, float, float]

HALF: Three = (127.5, 127.5, 127.5)  # mean and std of (x/255 - 0.5) / 0.5


@dataclass(frozen=True)
class Family:
    """Networks that one project published.

    Attributes:
        name: of the family.
        anchor: the name of a tensor that all its networks have: what stands before it in a file is
            the prefix of the whole network.
        settings: arguments of `create_backbone` for a network that the tensors fit, from those of
            the file under the network's own names; None where they are those of another family.
        color: channel order its networks take.
        mean, std: of the images, in units of 0 to 255.
        dropout: that its recipes train with.
        beside: beginnings of names of tensors under the same prefix that are not the network's.
        accepts: whether a prefix can be this family's, where tensors alone do not tell.
        nested: keys under which its files keep the network, the most wanted first.
        warning: what one has to know to use its networks.
    """

    name: str
    anchor: str
    settings: Callable[[State], dict[str, Any] | None]
    color: Color = "rgb"
    mean: Three = HALF
    std: Three = HALF
    dropout: float = 0.0
    beside: tuple[str, ...] = ()
    accepts: Callable[[str], bool] = lambda prefix: True
    nested: tuple[str, ...] = ()
    warning: str = ""


@dataclass(frozen=True)
class About:
    """What is known of a network that was read from a file.

    Attributes:
        family: name of the family.
        image_size: S of its images.
        color: channel order it takes.
        mean, std: of its images, in units of 0 to 255.
        embedding_size: D.
        grounds: how it was recognized, in words.
        warning: what the file leaves open; empty where it does not.
        backbone: arguments of `create_backbone` that build it anew.
    """

    family: str
    image_size: int
    color: Color
    mean: Three
    std: Three
    embedding_size: int
    grounds: str
    warning: str = ""
    backbone: Mapping[str, Any] = field(default_factory=dict)


def counted(state: State, pattern: str) -> int:
    """How many numbers n in a row, from 0, have a tensor named `pattern` with {n}."""
    number = 0
    while pattern.format(n=number) in state:
        number += 1
    return number
