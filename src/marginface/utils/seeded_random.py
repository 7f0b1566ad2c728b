"""Random numbers hashed from (seed, place): the same for every worker and rank."""

from collections.abc import Sequence

import torch
from torch import Tensor

_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's constants as int64


def hash_bits(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """64 random bits per sample (int64, any sign), from (seed, epoch, index) through splitmix64.

    A hash and not a generator: it does not matter which worker or rank asks, or in which order.
    """
    # On the host wherever the indices are: a number sent to a device would be waited for.
    state = _mix(_mix(torch.tensor(seed, dtype=torch.int64)) + epoch)
    return _mix(state + indices)


def hash_uniform(
    seed: int, epoch: int, indices: Tensor, count: int, streams: Sequence[int]
) -> Tensor:
    """float32 (streams, B, count) in [0, 1), from (seed, epoch, index) and the stream's number."""
    of_streams = torch.tensor(streams, dtype=torch.int64, device=indices.device) * 0x10000
    draws = of_streams[:, None] + torch.arange(1, count + 1, device=indices.device)
    bits = _mix(hash_bits(seed, epoch, indices)[:, None] ^ (draws * _MIX_1)[:, None])
    # 24 bits are what float32 holds exactly.
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) / (1 << 24)


def hash_normal(seed: Tensor, count: int) -> Tensor:
    """float32 (count,) from N(0, 1), up to 5.4 deviations, from a () int64 seed on its device."""
    bits = _mix(_mix(seed) + torch.arange(count, device=seed.device))
    # The middle of one of 2^24 equally probable parts, between -1 and 1: exact in float32.
    middle = ((bits >> 40) & 0xFFFFFF).mul_(2).sub_((1 << 24) - 1).to(torch.float32) / (1 << 24)
    return torch.erfinv(middle) * 2**0.5


def _mix(x: Tensor) -> Tensor:
    # int64 multiplication wraps around, as splitmix64 wants; >> keeps the sign, so mask it off.
    # The steps are in place: memory for millions of numbers takes a CPU longer than they do.
    x = x + -0x61C8864680B583EB
    shifted = x >> 30
    x.bitwise_xor_(shifted.bitwise_and_((1 << 34) - 1)).mul_(_MIX_1)
    torch.bitwise_right_shift(x, 27, out=shifted)
    x.bitwise_xor_(shifted.bitwise_and_((1 << 37) - 1)).mul_(_MIX_2)
    torch.bitwise_right_shift(x, 31, out=shifted)
    return x.bitwise_xor_(shifted.bitwise_and_((1 << 33) - 1))
