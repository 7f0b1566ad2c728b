"""Items made in a thread of their own, some ahead of who takes them."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 5.0  # a worker that waits for a network must not keep a run from ending


class _End:
    """After the last item: nothing, or the error that ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterator[T], number: int) -> Generator[T, None, None]:
    """The same items, up to `number` of them made before they are asked for.

    An error of `items` is raised where it would have been. When the result is closed, the thread
    ends with the item it is making, before anything else can use what the items come from; it is
    not waited for longer than `PATIENCE` seconds.

    Args:
        items: used by one thread only.
        number: at least 1.
    """
    ready: queue.Queue[T | _End] = queue.Queue(number)
    closed = threading.Event()

    def put(item: T | _End) -> None:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        end = _End()
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    return
        except BaseException as error:  # belongs to who asks for the item
            end = _End(error)
        put(end)

    thread = threading.Thread(target=make, name="batches ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        thread.join(PATIENCE)
