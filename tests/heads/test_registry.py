"""Names, parameters and their mistakes."""

import pytest

from marginface.heads import create_head, list_heads, register_head
from marginface.utils.errors import InputError


def test_unknown_head_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown head 'x2sofmax'. Did you mean 'x2softmax'"):
        create_head("x2sofmax", embedding_size=4, num_classes=3)


def test_unknown_parameter_names_the_accepted() -> None:
    with pytest.raises(
        InputError, match=r"no parameter 'scal'.*Did you mean 'scale'.*accepts: .*k"
    ):
        create_head("x2softmax", embedding_size=4, num_classes=3, scal=3.0)


def test_list_heads_takes_a_pattern() -> None:
    assert list_heads("elastic*") == ["elasticface_arc", "elasticface_cos"]


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register_head("arcface")(object)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"embedding_size": 0}, "embedding_size must be at least 1, got 0"),
        ({"scale": 0.0}, "scale must be positive"),
        (
            {"margin_gradient": "exct"},
            "margin_gradient='exct': input should be 'straight_through' or 'exact'.*accepts",
        ),
    ],
)
def test_bad_sizes(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_head("x2softmax", **({"embedding_size": 4, "num_classes": 3} | parameters))  # type: ignore[arg-type]
