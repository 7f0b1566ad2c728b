"""The same global batches whoever carries them out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marginface.data.augmentation import random_flip
from marginface.data.sampling import (
    ClassBalancedOrder,
    EpochOrder,
    EvaluationSampler,
    GlobalBatchSampler,
    GroupedOrder,
    ShuffledOrder,
    micro_batch_size,
)
from marginface.utils.errors import InputError
from marginface.utils.seeded_random import hash_bits

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
            ShuffledOrder(num_samples),
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
    order = ShuffledOrder(num_samples)(seed, epoch).tolist()
    expected = [order[s * batch_size : (s + 1) * batch_size] for s in range(first, per_epoch)]
    assert steps(samplers, accumulate) == expected
    for sampler in samplers:
        if told:  # as Lightning does; without, the next epoch follows by itself
            sampler.set_epoch(epoch + 1)
        assert len(sampler) == per_epoch * accumulate
    order = ShuffledOrder(num_samples)(seed, epoch + 1).tolist()
    expected = [order[s * batch_size : (s + 1) * batch_size] for s in range(per_epoch)]
    assert steps(samplers, accumulate) == expected


def test_orders_are_permutations_and_differ() -> None:
    orders = [ShuffledOrder(50)(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert (EpochOrder(5)(0, 3) == np.arange(5)).all()


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
        bits = torch.stack([hash_bits(1, epoch, torch.arange(20_000)) & 1 for epoch in range(4)])
        assert ((bits.double().mean(1) - 0.5).abs() < 0.02).all()
        agreement = (bits[0] == bits[1]).double().mean()
        assert abs(float(agreement) - 0.5) < 0.02
        assert (hash_bits(1, 0, torch.arange(9)) != hash_bits(2, 0, torch.arange(9))).all()

    def test_bits_are_splitmix64(self) -> None:
        """Against the published algorithm in Python integers."""
        mask = (1 << 64) - 1

        def mix(x: int) -> int:
            x = (x + 0x9E3779B97F4A7C15) & mask
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
            return x ^ (x >> 31)

        expected = [mix((mix((mix(5) + 2) & mask) + i) & mask) for i in range(100)]
        bits = hash_bits(5, 2, torch.arange(100)).tolist()
        assert [b & mask for b in bits] == expected


class TestClassBalanced:
    """m identities with k images each."""

    @given(
        counts=st.lists(st.integers(1, 9), min_size=4, max_size=12),
        per_batch=st.integers(1, 4),
        k=st.integers(1, 5),
        epoch=st.integers(0, 3),
    )
    def test_batches(self, counts: list[int], per_batch: int, k: int, epoch: int) -> None:
        labels = np.repeat(np.arange(len(counts)), counts)
        labels = np.random.default_rng(0).permutation(labels)
        order = ClassBalancedOrder(labels, per_batch * k, k)
        indices = order(7, epoch)
        assert len(indices) == order.length == len(labels) // (per_batch * k) * per_batch * k
        for batch in indices.reshape(-1, per_batch, k):
            assert (labels[batch] == labels[batch[:, :1]]).all(), "k of one identity together"
            assert len(set(labels[batch[:, 0]].tolist())) == per_batch, "no identity twice"
            for images, label in zip(batch, labels[batch[:, 0]], strict=True):
                assert len(set(images.tolist())) == min(k, counts[label]), "different images"
        assert (order(7, epoch) == indices).all()

    def test_every_identity_equally_often_and_every_image_in_turn(self) -> None:
        labels = np.repeat([0, 1, 2, 3], [40, 10, 5, 25])
        indices = ClassBalancedOrder(labels, 8, 2)(1, 0)
        visits = np.bincount(labels[indices])
        assert visits.tolist() == [20, 20, 20, 20]
        assert np.bincount(indices, minlength=80)[40:50].tolist() == [2] * 10
        assert np.bincount(indices, minlength=80)[:40].max() == 1

    def test_epochs_and_seeds_differ(self) -> None:
        order = ClassBalancedOrder(np.repeat(np.arange(5), 8), 8, 2)
        assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4

    def test_what_cannot_be_split(self) -> None:
        labels = np.repeat(np.arange(5), 8)
        with pytest.raises(InputError, match="images_per_class=3 must divide data.batch_size=8"):
            ClassBalancedOrder(labels, 8, 3)
        with pytest.raises(InputError, match="at most 5 identities a batch .got 8"):
            ClassBalancedOrder(labels, 16, 2)


class TestGrouped:
    """Every image once, images of an identity side by side."""

    @given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=10), size=st.integers(1, 5))
    def test_groups(self, counts: list[int], size: int) -> None:
        labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
        indices = GroupedOrder(labels, size)(3, 1)
        assert sorted(indices.tolist()) == list(range(len(labels)))
        places = {label: np.flatnonzero(labels[indices] == label) for label in range(len(counts))}
        for label, at in places.items():
            apart = 1 + int((np.diff(at) > 1).sum())
            assert apart <= -(-counts[label] // size), "no more pieces than groups"

    def test_groups_lie_apart(self) -> None:
        labels = np.repeat(np.arange(50), 8)
        one, other = GroupedOrder(labels, 4)(0, 0), GroupedOrder(labels, 4)(0, 1)
        assert (one != other).any()
        heads = labels[one].reshape(-1, 4)[:, 0]
        assert (heads[1:] != heads[:-1]).mean() > 0.9


def test_samplers_go_on_in_the_middle() -> None:
    """The same batches from a step on, on any number of ranks."""
    labels = np.repeat(np.arange(6), 10)
    for order in (ShuffledOrder(60), GroupedOrder(labels, 3), ClassBalancedOrder(labels, 12, 3)):
        whole = list(GlobalBatchSampler(order, 12, seed=2))
        for world in (1, 2):
            later = [
                list(GlobalBatchSampler(order, 12, seed=2, rank=r, world_size=world, start=(0, 2)))
                for r in range(world)
            ]
            joined = [[i for part in parts for i in part] for parts in zip(*later, strict=True)]
            assert joined == whole[2:]
