"""Class-balanced and identity orders: how often, how even, never twice, and the same however they are asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from utils.class_index import ClassIndex
from utils.epoch_order import EpochOrder, Order
from utils.identity_order import ClassBalancedOrder, IdentityOrder, build_order
from utils.permutation import permute_within

COUNTS = [5, 1, 0, 9, 4, 30, 2, 0, 17, 8]  # classes without images, with one, and with many


def index_of(counts: list[int]) -> ClassIndex:
    return ClassIndex.grouped(np.array(counts))


def labels_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def balanced(counts: list[int], seed: int = 5) -> ClassBalancedOrder:
    return ClassBalancedOrder(index_of(counts), sum(counts), seed)


def groups(counts: list[int], size: int, batch: int, seed: int = 5) -> IdentityOrder:
    return IdentityOrder(index_of(counts), sum(counts), seed, size, batch)


def epoch_of(order: Order, epoch: int) -> np.ndarray:
    return order.at(epoch, np.arange(order.num_images))


ORDERS = {
    "balanced": lambda: balanced(COUNTS), "identities": lambda: groups(COUNTS, 4, 24),
    "more groups than classes": lambda: groups(COUNTS, 2, 38), "batches cut groups": lambda: groups(COUNTS, 4, 10),
}  # fmt: skip
each_order = pytest.mark.parametrize("kind", ORDERS)


def fair(hits: np.ndarray, freedom: int) -> bool:
    """Whether counts spread as a fair draw's would: within 5 standard deviations of the chi-square distribution."""
    chi_square = ((hits - hits.mean()) ** 2 / hits.mean()).sum()
    return bool(abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9, 30, 100, 1025])
def test_many_permutations_at_once_are_bijections(size: int) -> None:
    sizes = np.repeat([size, size + 3, 2 * size], [size, size + 3, 2 * size])
    values = np.concatenate([np.arange(size), np.arange(size + 3), np.arange(2 * size)])
    keys = np.repeat(np.array([7, 7, 2**63], np.uint64), [size, size + 3, 2 * size])
    found = permute_within(values, sizes, keys)
    for part in (size, size + 3, 2 * size):
        assert np.array_equal(np.sort(found[:part]), np.arange(part))
        found = found[part:]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 16, 33])
def test_many_permutations_are_uniform_and_their_pairs_too(size: int) -> None:
    keys = np.random.default_rng(1).integers(0, 2**63, 2000 * size, dtype=np.uint64)
    first, second = (permute_within(np.full(len(keys), value), np.full(len(keys), size), keys) for value in (0, 1))
    assert fair(np.bincount(first, minlength=size), size - 1)
    pairs = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
    assert np.diag(pairs).sum() == 0
    assert fair(pairs[~np.eye(size, dtype=bool)], size * (size - 1) - 1)


@each_order
def test_any_position_can_be_asked_for_alone(kind: str) -> None:
    order, again = ORDERS[kind](), ORDERS[kind]()
    for epoch in (0, 3):
        whole = epoch_of(order, epoch)
        assert whole.dtype == np.int64
        assert [int(again.at(epoch, np.array([position]))[0]) for position in range(order.num_images)] == whole.tolist()
        mixed = np.random.default_rng(0).permutation(order.num_images)
        assert np.array_equal(again.at(epoch, mixed), whole[mixed])


@each_order
def test_epochs_differ(kind: str) -> None:
    order = ORDERS[kind]()
    assert (epoch_of(order, 0) == epoch_of(order, 1)).mean() < 0.3


@pytest.mark.parametrize("counts", [COUNTS, [3], [0, 6, 0], [1, 1, 1], [1, 50]])
def test_classes_come_equally_often_in_every_epoch_and_in_every_beginning_of_one(counts: list[int]) -> None:
    order, labels = balanced(counts), labels_of(counts)
    inhabited = np.flatnonzero(counts)
    for epoch in range(4):
        seen = labels[epoch_of(order, epoch)]
        for stop in range(1, len(seen) + 1):
            hits = np.bincount(seen[:stop], minlength=len(counts))
            assert hits[inhabited].max() - hits[inhabited].min() <= 1
            assert hits.sum() == hits[inhabited].sum()


def test_a_class_shows_all_its_images_before_one_comes_again() -> None:
    order, labels = balanced(COUNTS), labels_of(COUNTS)
    whole_rounds = len(labels) // np.count_nonzero(COUNTS)
    turns = np.concatenate([epoch_of(order, epoch)[: whole_rounds * order.num_classes] for epoch in range(40)])
    for label, count in enumerate(COUNTS):
        of_class = turns[labels[turns] == label]
        for start in range(0, len(of_class) - count + 1, max(1, count)):
            assert len(set(of_class[start : start + count].tolist())) == count


@pytest.mark.parametrize("order", [balanced(COUNTS), groups(COUNTS, 3, 12), groups(COUNTS, 2, 38)])
def test_all_images_of_a_class_are_used_equally_often(order: Order) -> None:
    hits = np.zeros(order.num_images)
    for epoch in range(600):
        np.add.at(hits, epoch_of(order, epoch), 1)
    for part in np.split(hits, np.cumsum(COUNTS)[:-1]):
        if len(part):
            assert part.min() > 0.8 * part.mean()
            assert part.max() < 1.2 * part.mean()


@pytest.mark.parametrize("make", [balanced, lambda counts, seed: groups(counts, 2, 4, seed)])
def test_every_class_reaches_every_position_equally_often(make) -> None:
    counts = [3, 1, 4, 2, 6]
    labels, epochs = labels_of(counts), 1500
    order = make(counts, 11)
    places = np.arange(0, 8, 2)
    hits = np.zeros((len(places), len(counts)))
    for epoch in range(epochs):
        hits[np.arange(len(places)), labels[order.at(epoch, places)]] += 1
    for row in hits:
        assert fair(row, len(counts) - 1)


def test_groups_hold_different_images_of_one_class() -> None:
    size, batch = 3, 12
    order, labels = groups(COUNTS, size, batch), labels_of(COUNTS)
    for epoch in range(20):
        images = epoch_of(order, epoch)
        for start in range(0, len(images) // batch * batch, size):
            group = images[start : start + size]
            (label,) = set(labels[group].tolist())
            assert len(set(group.tolist())) == min(size, COUNTS[label])


@pytest.mark.parametrize(("size", "batch"), [(2, 2), (3, 12), (2, 10), (4, 32), (2, 16)])
def test_no_class_twice_in_a_global_batch(size: int, batch: int) -> None:
    order, labels = groups(COUNTS, size, batch), labels_of(COUNTS)
    for epoch in range(30):
        images = epoch_of(order, epoch)
        for start in range(0, len(images) // batch * batch, batch):
            drawn = labels[images[start : start + batch : size]]
            assert len(set(drawn.tolist())) == len(drawn)


def test_with_more_groups_than_classes_a_batch_shows_each_as_often() -> None:
    counts = [4, 7, 11]
    order, labels = groups(counts, 2, 22), labels_of(counts)
    for epoch in range(10):
        drawn = np.bincount(labels[epoch_of(order, epoch)[:22:2]], minlength=3)
        assert sorted(drawn.tolist()) == [3, 4, 4]


def test_classes_left_over_take_turns() -> None:
    order, labels = groups([6] * 10, 2, 8), labels_of([6] * 10)  # 4 groups a batch, 8 classes a round
    hits = np.zeros(10)
    for epoch in range(500):
        np.add.at(hits, labels[epoch_of(order, epoch)[:56:2]], 1)
    assert hits.min() > 0.9 * hits.mean()


@each_order
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_are_disjoint_parts_of_the_same_batches(kind: str, world_size: int) -> None:
    """Rank r takes the r-th slice of each global batch: what dataset.py does with any order."""
    order = ORDERS[kind]()
    share = 24 // world_size
    for batch, epoch in ((0, 0), (2, 1)):
        alone = order.at(epoch, np.arange(batch * 24, (batch + 1) * 24))
        edges = [batch * 24 + rank * share for rank in range(world_size + 1)]
        parts = [order.at(epoch, np.arange(*edge)) for edge in pairwise(edges)]
        assert np.array_equal(np.concatenate(parts), alone)


def test_one_class_and_one_image() -> None:
    assert np.array_equal(np.sort(epoch_of(balanced([4]), 2)), np.arange(4))
    assert epoch_of(balanced([1]), 0).tolist() == [0]
    assert epoch_of(groups([1], 4, 8), 3).tolist() == [0]


def test_images_without_a_class_never_come() -> None:
    labels = np.array([1, -1, 0, 1, -1, 0, 2, 2])
    index = ClassIndex.from_labels(labels, 3)
    for order in (ClassBalancedOrder(index, 8, 5), IdentityOrder(index, 8, 5, 2, 4)):
        seen = np.concatenate([epoch_of(order, epoch) for epoch in range(20)])
        assert len(seen) == 160
        assert set(seen.tolist()) == {0, 2, 3, 5, 6, 7}


class Numbered:
    def __init__(self) -> None:
        self.asked = 0

    def __len__(self) -> int:
        return sum(COUNTS)

    def class_index(self) -> ClassIndex:
        self.asked += 1
        return index_of(COUNTS)


def test_build_order_asks_for_classes_only_where_it_must() -> None:
    source = Numbered()
    uniform = build_order(source, "uniform", 4, 7, 24)
    assert np.array_equal(epoch_of(uniform, 1), EpochOrder(sum(COUNTS), 7).indices(1, 0, sum(COUNTS)))
    assert (source.asked, uniform.repeats) == (0, False)
    for sampler in ("class_balanced", "identities"):
        order = build_order(source, sampler, 4, 7, 24)
        assert (order.num_images, order.repeats) == (len(source), True)
    assert source.asked == 2
    with pytest.raises(ValueError, match="'balanced' is unknown; allowed: uniform, class_balanced, identities"):
        build_order(source, "balanced", 4, 7, 24)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced([0, 0]), "ClassBalancedOrder: 0 of 0 images are in a class"),
        (lambda: balanced([2], -1), "seed is -1"),
        (lambda: groups([2], 0, 4), "groups of 0 in batches of 4"),
        (lambda: balanced([2]).at(0, np.array([2])), "ClassBalancedOrder: positions are not within 0 .. 1"),
        (lambda: balanced([2]).at(-1, np.array([0])), "whole numbers >= 0"),
    ],
)
def test_arguments_out_of_range(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


PINNED_BALANCED = [1, 6, 68, 49, 40, 5, 65, 16, 54, 50]
PINNED_GROUPS = [2, 1, 3, 12, 10, 14, 70, 72, 73, 50, 49, 50]


def test_the_orders_stay_what_they_were() -> None:
    """Checkpoints resume by them: they may not change with a library or a release."""
    assert balanced(COUNTS).at(2, np.arange(10)).tolist() == PINNED_BALANCED
    assert groups(COUNTS, 3, 12).at(2, np.arange(12)).tolist() == PINNED_GROUPS
