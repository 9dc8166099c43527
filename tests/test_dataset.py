"""The order of epochs, the global order over ranks and workers, and errors that reach the main process."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import AUGMENTATIONS, Batch, EpochOrder, batches_per_epoch, build_loader, open_source
from sources import Source, SourceError
from sources.synthetic import SyntheticSource
from tests.records import make_record_set
from utils.images import ImageFormat

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100, 1023, 1024, 1025, 4097, 65536, 70001]

PINNED_ORDER = [4, 2, 8, 3, 1, 7, 5, 9, 0, 6]
PINNED_FAR = [128694511, 780002865, 416429666]


def numbered_source(num_images: int, num_classes: int = 5) -> SyntheticSource:
    return SyntheticSource(num_classes, num_images, ImageFormat(6, 8, 3))


def stream(source: Source, **changes: object) -> list[Batch]:
    options: dict = {
        "seed": 7,
        "batch_size": 6,
        "rank": 0,
        "world_size": 1,
        "first_batch": 0,
        "last_batch": 9,
        "num_workers": 0,
    }
    return list(build_loader(source, **(options | changes)))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("num_images", SIZES)
def test_every_epoch_visits_every_image_once(num_images: int) -> None:
    order = EpochOrder(num_images, seed=3)
    for epoch in (0, 1, 12345):
        assert np.array_equal(np.sort(order.indices(epoch, 0, num_images)), np.arange(num_images))


@pytest.mark.parametrize("num_images", [7, 1000, 4097])
def test_the_order_does_not_depend_on_how_it_is_asked_for(num_images: int) -> None:
    whole = EpochOrder(num_images, 1).indices(5, 0, num_images)
    rng = np.random.default_rng(0)
    cuts = [0, *sorted(rng.integers(0, num_images, 9).tolist()), num_images]
    order = EpochOrder(num_images, 1)
    pieces = [order.indices(5, start, stop) for start, stop in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert whole.dtype == np.int64


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = EpochOrder(1000, 1).indices(0, 0, 1000)
    assert np.array_equal(first, EpochOrder(1000, 1).indices(0, 0, 1000))
    for other in (EpochOrder(1000, 1).indices(1, 0, 1000), EpochOrder(1000, 2).indices(0, 0, 1000)):
        assert (first == other).sum() < 10, "two random orders agree in one place on average"


@pytest.mark.parametrize(("num_images", "epochs"), [(3, 1500), (5, 2000), (16, 3000), (23, 4000)])
def test_every_image_reaches_every_position_equally_often(num_images: int, epochs: int) -> None:
    order = EpochOrder(num_images, seed=11)
    hits = np.zeros((num_images, num_images))
    for epoch in range(epochs):
        hits[np.arange(num_images), order.indices(epoch, 0, num_images)] += 1
    expected = epochs / num_images
    chi_square = ((hits - expected) ** 2 / expected).sum()
    freedom = (num_images - 1) ** 2
    # 5 standard deviations of the chi-square distribution: a fair order exceeds it once in a million seeds.
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_the_order_stays_what_it_was() -> None:
    """Checkpoints resume by it, published results rest on it: it may not change with a library or a release."""
    assert EpochOrder(10, 0).indices(0, 0, 10).tolist() == PINNED_ORDER
    assert EpochOrder(10**9, 2048).indices(7, 123, 126).tolist() == PINNED_FAR


def test_neighbours_in_the_data_are_no_neighbours_in_the_order() -> None:
    order = EpochOrder(10_000, 0).indices(0, 0, 10_000)
    steps = np.abs(np.diff(order))
    assert abs(steps.mean() - 10_000 / 3) < 150, "the mean distance of random positions is n / 3"
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05


def test_the_order_of_many_images_needs_no_memory() -> None:
    order = EpochOrder(10**12, 0)
    batch = order.indices(3, 10**12 - 128, 10**12)
    assert len(set(batch.tolist())) == 128
    assert batch.min() >= 0
    assert batch.max() < 10**12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EpochOrder(0, 1), "num_images is 0"),
        (lambda: EpochOrder(4, -1), "seed is -1"),
        (lambda: EpochOrder(4, 1).indices(0, 2, 5), "positions 2 .. 5 are not within 0 .. 4"),
        (lambda: EpochOrder(4, 1).indices(-1, 0, 4), "whole numbers >= 0"),
    ],
)
def test_order_arguments_out_of_range(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_batches_per_epoch() -> None:
    assert [batches_per_epoch(100, size) for size in (1, 30, 100, 101)] == [100, 3, 1, 1]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_rank_sees(world_size: int, augmentation: str) -> None:
    source = numbered_source(50)
    alone = stream(source, batch_size=6, augmentation=augmentation)
    parts = [
        stream(source, batch_size=6 // world_size, rank=rank, world_size=world_size, augmentation=augmentation)
        for rank in range(world_size)
    ]
    for number, batch in enumerate(alone):
        assert torch.equal(torch.cat([part[number].images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part[number].labels for part in parts]), batch.labels)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_over_all_ranks_repeats_no_image(world_size: int) -> None:
    source = SyntheticSource(60, 60, ImageFormat(2, 2, 1))  # the label is the index
    for epoch in (0, 1):
        span = {"first_batch": epoch * (60 // (4 * world_size)), "last_batch": (epoch + 1) * (60 // (4 * world_size))}
        labels = [
            label
            for rank in range(world_size)
            for batch in stream(source, batch_size=4, rank=rank, world_size=world_size, **span)
            for label in batch.labels.tolist()
        ]
        assert len(labels) == len(set(labels)) == 60 // (4 * world_size) * 4 * world_size


def test_the_stream_resumes_at_any_batch() -> None:
    source = numbered_source(20)
    whole = stream(source, last_batch=10)
    for first in (1, 3, 7):
        assert same(stream(source, first_batch=first, last_batch=10), whole[first:])


@pytest.mark.parametrize(("num_workers", "start_method"), [(2, None), (1, "spawn")])
def test_workers_change_nothing(num_workers: int, start_method: str | None, tmp_path: Path) -> None:
    source = open_source(str(make_record_set(tmp_path, [5, 7, 4])))
    here = stream(source, batch_size=5, last_batch=9)
    assert same(stream(source, batch_size=5, last_batch=9, num_workers=num_workers, start_method=start_method), here)


def test_one_stream_of_workers_serves_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils.data.dataloader as torch_loader

    started: list[int] = []
    original = torch_loader._MultiProcessingDataLoaderIter.__init__
    monkeypatch.setattr(
        torch_loader._MultiProcessingDataLoaderIter,
        "__init__",
        lambda self, loader: (started.append(1), original(self, loader))[1],
    )
    assert len(stream(numbered_source(12), num_workers=1, last_batch=10)) == 10  # five epochs of two batches
    assert started == [1]


def test_loading_leaves_torchs_random_state_alone() -> None:
    before = torch.get_rng_state()
    stream(numbered_source(12), num_workers=1, last_batch=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_set_smaller_than_the_global_batch_is_shared_out() -> None:
    source = SyntheticSource(8, 8, ImageFormat(2, 2, 1))
    parts = [stream(source, batch_size=5, rank=rank, world_size=3, last_batch=2) for rank in range(3)]
    assert [batch.batch_sizes for batch in parts[0]] == [(3, 3, 2)] * 2
    assert [len(part[0].labels) for part in parts] == [3, 3, 2]
    for number in (0, 1):
        assert sorted(label for part in parts for label in part[number].labels.tolist()) == list(range(8))


def test_more_ranks_than_images_is_refused() -> None:
    with pytest.raises(SourceError, match="2 images for 3 ranks"):
        stream(numbered_source(2), world_size=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size 0 for rank 0 of 1"),
        ({"rank": 1}, "batch_size 6 for rank 1 of 1"),
        ({"first_batch": 10}, "batches 10 .. 9 with 0 workers"),
        ({"num_workers": -1}, "batches 0 .. 9 with -1 workers"),
    ],
)
def test_loader_arguments_out_of_range(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(numbered_source(9), **changes)


def test_unknown_augmentation_names_the_known() -> None:
    with pytest.raises(ValueError, match="'mirror' is unknown; allowed: none, flip, pad_crop_flip, shift_flip"):
        stream(numbered_source(9), augmentation="mirror")


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_about_half_of_the_images_anew_each_epoch(channels: int) -> None:
    source = SyntheticSource(400, 400, ImageFormat(4, 6, channels))
    mirrored = []
    for epoch in (0, 1):
        flags = np.zeros(400, dtype=bool)
        (batch,) = stream(source, batch_size=400, first_batch=epoch, last_batch=epoch + 1, augmentation="flip")
        for image, index in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
            original = source.read(index)[0]
            flags[index] = np.array_equal(image, original[:, ::-1])
            assert flags[index] or np.array_equal(image, original)
        mirrored.append(flags)
    assert all(150 < flags.sum() < 250 for flags in mirrored)
    assert 150 < (mirrored[0] != mirrored[1]).sum() < 250


def test_no_augmentation_returns_the_images_themselves() -> None:
    source = SyntheticSource(30, 30, ImageFormat(4, 6, 3))
    (batch,) = stream(source, batch_size=30, last_batch=1, augmentation="none")
    for image, index in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
        assert np.array_equal(image, source.read(index)[0])


def test_positions_asked_for_one_by_one_are_those_of_a_span() -> None:
    order, positions = EpochOrder(1000, 3), np.array([999, 0, 17, 500])
    assert order.at(2, positions).tolist() == order.indices(2, 0, 1000)[positions].tolist()
    for wrong in ([-1], [1000]):
        with pytest.raises(ValueError, match=r"not within 0 \.\. 999"):
            order.at(0, np.array(wrong))


def test_batches_that_are_kept_do_not_change_when_slots_are_used_again() -> None:
    source = SyntheticSource(5, 60, ImageFormat(8, 8, 3))
    settings = {"seed": 1, "batch_size": 4, "rank": 0, "world_size": 1, "first_batch": 0, "last_batch": 30}
    alone = [batch.images.clone() for batch in build_loader(source, num_workers=0, **settings)]
    kept = [batch.images for batch in build_loader(source, num_workers=2, **settings)]  # more than there are slots
    for number, batch in enumerate(build_loader(source, num_workers=2, **settings)):  # none kept: slots are used again
        assert torch.equal(batch.images, alone[number])
    assert all(torch.equal(one, other) for one, other in zip(alone, kept, strict=True))
