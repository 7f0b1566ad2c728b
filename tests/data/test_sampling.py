"""The same global batches whoever carries them out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marginface.data.sampling import (
    EvaluationSampler,
    GlobalBatchSampler,
    InOrder,
    Shuffled,
    micro_batch_size,
)
from marginface.data.transforms import random_flip, sample_bits
from marginface.errors import InputError

parts = st.integers(1, 4)


def steps(samplers: list[GlobalBatchSampler], accumulate: int) -> list[list[int]]:
    """The global batches that the ranks' micro-batches make up."""
    per_rank = [list(sampler) for sampler in samplers]
    batches = []
    for start in range(0, len(per_rank[0]), accumulate):
        micro = [rank[part] for part in range(start, start + accumulate) for rank in per_rank]
        batches.append([index for batch in micro for index in batch])
    return batches


@given(
    world=parts,
    accumulate=parts,
    micro=parts,
    extra=st.integers(0, 40),
    seed=st.integers(0, 9),
    start=st.integers(0, 30),
    told=st.booleans(),
)
def test_global_batches(
    world: int, accumulate: int, micro: int, extra: int, seed: int, start: int, told: bool
) -> None:
    batch_size = world * accumulate * micro
    num_samples = batch_size + extra
    samplers = [
        GlobalBatchSampler(
            Shuffled(num_samples),
            batch_size,
            seed=seed,
            rank=rank,
            world_size=world,
            accumulate=accumulate,
            start=divmod(start, num_samples // batch_size),
        )
        for rank in range(world)
    ]
    per_epoch = num_samples // batch_size
    epoch, first = divmod(start, per_epoch)
    order = Shuffled(num_samples)(seed, epoch).tolist()
    expected = [order[s * batch_size : (s + 1) * batch_size] for s in range(first, per_epoch)]
    assert steps(samplers, accumulate) == expected
    for sampler in samplers:
        if told:  # as Lightning does; without, the next epoch follows by itself
            sampler.set_epoch(epoch + 1)
        assert len(sampler) == per_epoch * accumulate
    order = Shuffled(num_samples)(seed, epoch + 1).tolist()
    expected = [order[s * batch_size : (s + 1) * batch_size] for s in range(per_epoch)]
    assert steps(samplers, accumulate) == expected


def test_orders_are_permutations_and_differ() -> None:
    orders = [Shuffled(50)(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert (InOrder(5)(0, 3) == np.arange(5)).all()


@given(num_samples=st.integers(1, 60), batch_size=st.integers(1, 9), world=st.integers(1, 5))
def test_evaluation_sees_every_sample_once(num_samples: int, batch_size: int, world: int) -> None:
    ranks = [
        list(EvaluationSampler(num_samples, batch_size, rank=r, world_size=world))
        for r in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    seen = [index for batches in ranks for batch in batches for index in batch if index >= 0]
    assert sorted(seen) == list(range(num_samples))


def test_batches_that_cannot_be_split() -> None:
    assert micro_batch_size(24, 2, 3) == 4
    with pytest.raises(InputError, match="batch_size=25 .* 2 processes x 3 .* use 24 or 30"):
        micro_batch_size(25, 2, 3)
    with pytest.raises(InputError, match="use 8$"):
        micro_batch_size(3, 8, 1)
    with pytest.raises(InputError, match="batch_size=-5 .* use 4$"):
        micro_batch_size(-5, 4, 1)


class TestFlips:
    """Drawn from (seed, epoch, sample index) and nothing else."""

    def test_decided_per_sample(self) -> None:
        images = torch.arange(60, dtype=torch.uint8).view(10, 1, 2, 3).expand(-1, 3, -1, -1)
        indices = torch.arange(100, 110)
        whole = random_flip(images, 7, 3, indices)
        order = torch.randperm(10)
        shuffled = random_flip(images[order], 7, 3, indices[order])
        assert torch.equal(shuffled, whole[order])
        flipped = [bool((whole[i] == images[i].flip(2)).all()) for i in range(10)]
        assert 0 < sum(flipped) < 10

    def test_half_of_them_and_different_every_epoch(self) -> None:
        bits = torch.stack([sample_bits(1, epoch, torch.arange(20_000)) & 1 for epoch in range(4)])
        assert ((bits.double().mean(1) - 0.5).abs() < 0.02).all()
        agreement = (bits[0] == bits[1]).double().mean()
        assert abs(float(agreement) - 0.5) < 0.02
        assert (sample_bits(1, 0, torch.arange(9)) != sample_bits(2, 0, torch.arange(9))).all()

    def test_bits_are_splitmix64(self) -> None:
        """Against the published algorithm in Python integers."""
        mask = (1 << 64) - 1

        def mix(x: int) -> int:
            x = (x + 0x9E3779B97F4A7C15) & mask
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
            return x ^ (x >> 31)

        expected = [mix((mix((mix(5) + 2) & mask) + i) & mask) for i in range(100)]
        bits = sample_bits(5, 2, torch.arange(100)).tolist()
        assert [b & mask for b in bits] == expected
