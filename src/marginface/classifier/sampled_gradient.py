"""The gradient of sampled centers, whose rows are in order and each there once."""

from torch import Tensor, nn


def keep_order_known(centers: nn.Parameter) -> None:
    """Let the gradient say that it is coalesced, as it did when the backward pass made it.

    Autograd forgets that when it puts a sparse gradient into `centers.grad`. An optimizer would
    sort its rows in every step, copy all of them, and have to wait for a GPU; it still does with a
    deep copy of these centers, which has no hooks.
    """
    # Both are called without a gradient, too, where the backward pass stepped the centers itself.
    in_order = 0  # memory of the row numbers that are known to be so

    def see(gradient: Tensor | None) -> None:
        nonlocal in_order
        in_order = 0
        if gradient is not None and gradient.is_sparse and gradient.is_coalesced():
            in_order = gradient._indices().data_ptr()

    def mark(parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None or not gradient.is_sparse:
            return
        # A sum with what was there before has other row numbers.
        if gradient._indices().data_ptr() == in_order:
            gradient._coalesced_(True)

    centers.register_hook(see)
    centers.register_post_accumulate_grad_hook(mark)
