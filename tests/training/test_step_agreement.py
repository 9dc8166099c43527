"""What ranks tell each other in a step's one exchange: stops, failed saves, bad records, data errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch.distributed as dist

from dataset import Batch
from tests.ranks import RankPool
from tests.training.runs import batches_of, make_run, weights_of
from training.step import train_step
from utils.bad_records import BadImage
from utils.recordio import RecordError


def told(last_only: bool) -> list[tuple[bool, bool, int]]:
    """What every rank hears when (only the last, or each) has something to tell in the second of three steps."""
    run, heard = make_run(gradient_acc=2, batch_size=3), []
    run.bad_records.say = lambda line: None
    rank = dist.get_rank()
    speaks = not last_only or rank == dist.get_world_size() - 1
    for step, batches in enumerate(batches_of(run, 0, 3)):
        is_on = step == 1 and speaks
        bad = (BadImage(5, "train.rec", 6, 4096, "cut short"), BadImage(10 + rank, "train.rec", 7, 8192, "no JPEG"))
        marked = [dataclasses.replace(batch, bad=bad if is_on else ()) for batch in batches]
        result = train_step(run, marked, step, stop_requested=is_on, save_failed=is_on)
        heard.append((result.stop_requested, result.save_failed, run.bad_records.count))
    return heard


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("last_only", [True, False])
def test_all_ranks_hear_what_one_tells(ranks: RankPool, world_size: int, last_only: bool) -> None:
    count = 2 if last_only else 1 + world_size  # different images: all met number 5
    for heard in ranks.run(world_size, told, last_only):
        assert heard == [(False, False, 0), (True, True, count), (False, False, count)]


def failed(failing: tuple[int, ...]) -> tuple[str, object, bool]:
    """The error of a step to which some ranks bring a batch that could not be read, and whether nothing moved."""
    run = make_run()
    batches: list[Batch] = batches_of(run, 0, 1)[0]
    rank = dist.get_rank()
    if rank in failing:
        error = RecordError("faces/train.rec", 17 + rank, 4096, "the image is cut short").within("batch 0 of epoch 0")
        batches = [dataclasses.replace(batches[0], failure=error)]
    before = weights_of(run)
    with pytest.raises(RecordError) as caught:
        train_step(run, batches, 0)
    same = all(np.array_equal(value, before[name]) for name, value in weights_of(run).items())
    return str(caught.value), caught.value.key, same


@pytest.mark.parametrize(("world_size", "failing"), [(1, (0,)), (2, (1,)), (2, (0, 1))])
def test_a_batch_that_cannot_be_read_ends_the_step_on_all_ranks(
    ranks: RankPool, world_size: int, failing: tuple[int, ...]
) -> None:
    first = failing[0]
    results = ranks.run(world_size, failed, failing)
    assert len(set(results)) == 1
    text, key, is_unchanged = results[0]
    assert is_unchanged
    assert key == 17 + first
    for part in ("faces/train.rec", "4096", "the image is cut short", "batch 0 of epoch 0", f"rank {first}"):
        assert part in text
