"""Folds of one kind of pairs, and the order in which contiguous blocks hold both kinds."""

from __future__ import annotations

import numpy as np
import pytest

from eval.pair_formats.pair_list import blocks, folds_of_one_kind, order_for_blocks


def test_folds_of_one_kind_are_counted():
    is_same = np.array([True, True, True, False, False, False, False])
    assert folds_of_one_kind(is_same, np.array([0, 0, 1, 1, 1, 2, 2])) == 2
    assert folds_of_one_kind(is_same, np.array([0, 1, 2, 0, 1, 2, 0])) == 0
    assert folds_of_one_kind(np.ones(7, dtype=bool), np.zeros(7, dtype=np.int64)) == 1


@pytest.mark.parametrize("num_pairs", [20, 21, 25, 29, 30, 39, 95, 100, 1005])
def test_blocks_hold_both_kinds_wherever_there_are_ten_of_each(num_pairs):
    rng = np.random.default_rng(num_pairs)
    for num_same in {10, 11, 14, 19, num_pairs // 2, num_pairs - 10}:
        if not 10 <= num_same <= num_pairs - 10:
            continue
        is_same = np.arange(num_pairs) < num_same
        for folds in (
            np.sort(rng.integers(0, 3, num_pairs)),
            rng.integers(0, 10, num_pairs),
            (np.arange(num_pairs) >= num_same).astype(np.int64),
        ):
            order = order_for_blocks(is_same, folds)
            assert sorted(order.tolist()) == list(range(num_pairs))
            assert folds_of_one_kind(is_same[order], blocks(num_pairs)) == 0
            for kind in (True, False):  # each kind stays fold after fold, in the order of the list
                chosen = order[is_same[order] == kind]
                assert chosen.tolist() == chosen[np.lexsort((chosen, folds[chosen]))].tolist()


def test_folds_that_can_stay_do():
    is_same = np.arange(40) < 20
    contiguous = blocks(40)
    assert order_for_blocks(is_same, contiguous).tolist() == list(range(40))  # of one kind, but the list's own
    shuffled = np.random.default_rng(0).permutation(contiguous)
    order = order_for_blocks(is_same, shuffled)
    assert shuffled[order].tolist() == contiguous.tolist()
    five = np.repeat(np.arange(5), 8)
    assert order_for_blocks(np.arange(40) % 2 == 0, five).tolist() == list(range(40))  # both kinds are everywhere


def test_of_few_pairs_of_a_kind_each_goes_to_a_block_of_its_own():
    is_same = np.arange(50) < 3
    order = order_for_blocks(is_same, np.repeat(np.arange(2), 25))
    assert folds_of_one_kind(is_same[order], blocks(50)) == 7
    assert order_for_blocks(np.ones(12, dtype=bool), np.arange(12) % 2).tolist() == [*range(0, 12, 2), *range(1, 12, 2)]
