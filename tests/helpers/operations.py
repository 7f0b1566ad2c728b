"""Counts the operations that torch is asked for."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Those that only look at a tensor in another way, or at the clock, and launch nothing.
VIEWS = {
    "view", "unsqueeze", "permute", "detach", "slice", "select", "squeeze", "expand", "alias", "t",
    "transpose", "as_strided", "unbind", "lift_fresh", "_unsafe_view",
    "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip


class Operations(TorchDispatchMode):
    """How often each operation was called in this context, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        self.count[function.name().split("::")[1].split(".")[0]] += 1
        return function(*arguments, **(named or {}))

    def launched(self) -> Counter[str]:
        """The same without views."""
        return Counter({key: n for key, n in self.count.items() if key not in VIEWS})
