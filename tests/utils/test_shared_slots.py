"""Slots are used again, but never while somebody still looks at what is in them."""

from __future__ import annotations

import torch

from utils.shared_slots import SharedSlots


def test_a_slot_is_free_again_when_its_last_tensor_is_gone() -> None:
    slots = SharedSlots(2, (3, 4))
    assert sorted([slots.take(), slots.take()]) == [0, 1]
    assert slots.take() is None
    slots.tensors[1].fill_(7)
    opened = slots.open(1)
    assert opened.shape == (3, 4)
    assert bool((opened == 7).all())
    part = opened[1:]  # a view keeps it busy
    del opened
    assert slots.take() is None
    del part
    assert slots.take() == 1


def test_a_computed_tensor_does_not_keep_a_slot() -> None:
    slots = SharedSlots(1, (2,))
    taken = slots.take()
    assert taken == 0
    doubled = slots.open(taken).float() * 2
    assert slots.take() == 0
    assert doubled.dtype == torch.float32


def test_no_slots_at_all() -> None:
    assert SharedSlots(0, (2,)).take() is None
