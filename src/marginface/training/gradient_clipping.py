"""Clips gradients by their norm or value, and tells the norm that they had."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def clip_gradients(
    parameters: Sequence[nn.Parameter],
    limit: float | None,
    *,
    by_value: bool = False,
    tells_norm: bool = False,
) -> Tensor | None:
    """Clip the gradients of parameters together, in place.

    Args:
        limit: of their norm, or of each number; None leaves them as they are.
        by_value: whether the limit is one of each number.
        tells_norm: whether the norm is wanted.

    Returns:
        () norm of all gradients before they were clipped, where it was wanted.
    """
    norm = None
    if tells_norm or not (limit is None or by_value):
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    told = None
    if norm is not None and tells_norm:
        # Of a sharded backbone every process has its part.
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        told = whole.detach().clone()
    if limit is not None and by_value:
        nn.utils.clip_grad_value_(parameters, limit)
    elif limit is not None and norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return told
