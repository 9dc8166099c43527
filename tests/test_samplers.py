"""Samplers through the loader: equal over ranks and workers, resumable, and drawn anew where images repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import Batch, build_loader
from sources.arrays import ArraySource
from sources.synthetic import SyntheticSource
from tests.training.runs import FORMAT, batches_of, make_run
from utils.images import ImageFormat

SOURCE = SyntheticSource(9, 60, ImageFormat(6, 8, 3))
SAMPLERS = ["class_balanced", "identities"]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def stream(sampler: str, **changes: object) -> list[Batch]:
    options: dict = {
        "seed": 7, "batch_size": 12, "rank": 0, "world_size": 1, "first_batch": 0, "last_batch": 12, "num_workers": 0,
        "sampler": sampler, "images_per_identity": 2,
    }  # fmt: skip
    return list(build_loader(SOURCE, **(options | changes)))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True)
    )


@each_sampler
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_rank_sees(sampler: str, world_size: int) -> None:
    parts = [
        stream(sampler, batch_size=12 // world_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for number, batch in enumerate(stream(sampler)):
        assert torch.equal(torch.cat([part[number].images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part[number].labels for part in parts]), batch.labels)


@each_sampler
def test_workers_and_resuming_change_nothing(sampler: str) -> None:
    whole = stream(sampler)
    for first in (1, 5, 7):  # an epoch has 5 batches
        assert same(stream(sampler, first_batch=first), whole[first:])
    assert same(stream(sampler, num_workers=2, first_batch=3), whole[3:])


def test_identities_come_in_groups_and_once_a_batch() -> None:
    for batch in stream("identities"):
        groups = batch.labels.view(-1, 2)
        assert torch.equal(groups[:, 0], groups[:, 1])
        assert len(set(groups[:, 0].tolist())) == 6


def test_an_image_that_comes_again_is_drawn_anew() -> None:
    """One image and 40 others: balanced, it comes 20 times an epoch, sometimes mirrored, sometimes not."""
    images = np.random.default_rng(0).integers(0, 255, (41, *FORMAT.shape), dtype=np.uint8)
    source = ArraySource("arrays", Path(), images, np.array([0] + [1] * 40), 2, FORMAT)
    loader = build_loader(
        source, seed=1, batch_size=41, rank=0, world_size=1, first_batch=0, last_batch=1, num_workers=0,
        sampler="class_balanced",
    )  # fmt: skip
    (batch,) = list(loader)
    shown = [image.numpy() for image, label in zip(batch.images, batch.labels, strict=True) if label == 0]
    mirrored = sum(np.array_equal(image, images[0][:, ::-1]) for image in shown)
    assert len(shown) in (20, 21)
    assert 3 <= mirrored <= len(shown) - 3


def test_a_run_takes_the_sampler_from_its_config(ranks) -> None:
    labels = ranks.run(1, drawn_by_a_run)[0]
    assert all(first == second for first, second in zip(labels[::2], labels[1::2], strict=True))


def drawn_by_a_run() -> list[int]:
    run = make_run(sampler="identities", images_per_identity=2)
    return batches_of(run, 0, 1)[0][0].labels.tolist()
