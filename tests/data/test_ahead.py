"""Items made ahead: all of them, in order, with their errors, and a thread that ends."""

import threading
from collections.abc import Iterator

import pytest

from marginface.data.ahead import ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "batches ahead"]


@pytest.mark.parametrize("number", [1, 3])
def test_all_items_in_order(number: int) -> None:
    assert list(ahead(iter(range(50)), number)) == list(range(50))
    assert threads() == []


def test_items_are_made_before_they_are_asked_for() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        yield 2
        made.set()
        yield 3

    taken = ahead(items(), 2)
    assert next(taken) == 1
    assert made.wait(10)
    assert list(taken) == [2, 3]


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("damaged")

    taken = ahead(items(), 2)
    assert next(taken) == 1
    with pytest.raises(OSError, match="damaged"):
        next(taken)
    assert threads() == []


def test_closing_ends_the_thread() -> None:
    def items() -> Iterator[int]:
        while True:
            yield 0

    taken = ahead(items(), 2)
    next(taken)
    assert threads()
    taken.close()  # type: ignore[attr-defined]
    assert threads() == []
