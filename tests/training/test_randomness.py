"""Every random draw of a run by its scope, on 1, 2 and 3 ranks: each rank's own, of a class or image, or everyone's.

| drawn | from | scope |
|---|---|---|
| dropout | seed, step, rank | differs on every rank, in every step |
| negatives | seed, step, micro-step, rank | differ on every rank, in every step |
| prototypes at the start | seed, class | the class's, whatever the number of ranks |
| order of the images | seed, epoch, place | the global batch's, whatever the number of ranks |
| augmentation, substitutes of bad images | seed, epoch, image | the image's, whatever the number of ranks |
| backbone at the start | seed | equal on all ranks, and for any number of them |
| a head's noise | seed, step, micro-step, place in the global batch | equal on all ranks, and for any number |
"""

from __future__ import annotations

import ast
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dataset import build_loader
from losses import PartialFC, build_head
from sources.substitutes import substitutes
from sources.synthetic import SyntheticSource
from tests.ranks import REPO_ROOT, RankPool
from tests.training.runs import FORMAT, batches_of, make_run
from training.step import train_step

WORLD_SIZES = (1, 2, 3)
GLOBAL_BATCH = 12
CLASSES = 300  # enough for sampling to leave most of a rank's classes out


def stepped(seed: int) -> dict[str, Any]:
    """Two steps of a run with dropout; the dropout masks seen, and the weights before."""
    run = make_run("norm", batch_size=GLOBAL_BATCH // dist.get_world_size(), seed=seed)
    start = {name: tensor.detach().numpy().copy() for name, tensor in run.backbone.state_dict().items()}
    masks: list[np.ndarray] = []
    dropout = next(module for module in run.backbone.modules() if isinstance(module, torch.nn.Dropout))
    # Of all 36 units of the first image: whether it was dropped. A unit that tanh and the norm left at 0 is not.
    dropout.register_forward_hook(
        lambda _, given, got: masks.append((got[0] == 0).numpy() & (given[0][0] != 0).numpy())
    )
    for step, batches in enumerate(batches_of(run, 0, 2)):
        train_step(run, batches, step)
    return {"start": start, "masks": masks}


def sampled(seed: int) -> dict[str, Any]:
    """What PartialFC draws in steps 0 and 1, micro-steps 0 and 1 of step 1, on one and the same batch."""
    fc = PartialFC(build_head("elasticface_arc"), 4, CLASSES, sample_rate=0.3, seed=seed)
    world_size = dist.get_world_size()
    size = GLOBAL_BATCH // world_size
    found: dict[str, Any] = {"weight": fc.weight.detach().numpy().copy(), "range": fc.class_range, "draws": {}}
    for step, micro_step in ((0, 0), (1, 0), (1, 1)):
        embeddings = torch.ones(size, 4)
        fc(
            embeddings,
            torch.zeros(size, dtype=torch.int64),
            step=step,
            micro_step=micro_step,
            batch_sizes=(size,) * world_size,
        )
        assert fc.last_statistics is not None
        rows = (fc.sampled_classes - fc.class_range[0]).tolist()
        found["draws"][step, micro_step] = (rows, fc.last_statistics.noise.tolist())
    return found


def delivered(sampler: str, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """This rank's part of four global batches over two epochs, augmented."""
    world_size = dist.get_world_size()
    stream = build_loader(
        SyntheticSource(5, 30, FORMAT), seed=seed, batch_size=GLOBAL_BATCH // world_size, rank=dist.get_rank(),
        world_size=world_size, first_batch=0, last_batch=4, num_workers=0, augmentation="pad_crop_flip",
        sampler=sampler, images_per_identity=3,
    )  # fmt: skip
    return [(batch.images.numpy().copy(), batch.labels.numpy().copy()) for batch in stream]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_dropout_is_each_ranks_own_and_each_steps_own(ranks: RankPool, world_size: int) -> None:
    first, again, other = (ranks.run(world_size, stepped, seed) for seed in (3, 3, 4))
    masks = [mask for found in first for mask in found["masks"][-2:]]
    assert all(0 < mask.sum() < mask.size for mask in masks), "some units are dropped, others are not"
    for one, two in itertools.combinations(masks, 2):
        assert not np.array_equal(one, two), "two ranks or two steps drew the same"
    for found, repeated, another in zip(first, again, other, strict=True):
        assert np.array_equal(found["masks"], repeated["masks"]), "a function of (seed, step, rank)"
        assert not np.array_equal(found["masks"][-1], another["masks"][-1])


def test_the_backbone_starts_equal_on_every_rank_of_every_run(ranks: RankPool) -> None:
    starts = [found["start"] for world_size in WORLD_SIZES for found in ranks.run(world_size, stepped, 3)]
    for start in starts[1:]:
        assert all(np.array_equal(start[name], starts[0][name]) for name in starts[0])
    (another,) = ranks.run(1, stepped, 4)
    assert not np.array_equal(another["start"]["fc.weight"], starts[0]["fc.weight"])


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_negatives_are_each_ranks_own_and_the_heads_noise_is_everyones(ranks: RankPool, world_size: int) -> None:
    first, again, other = (ranks.run(world_size, sampled, seed) for seed in (3, 3, 4))
    assert all(a["draws"] == b["draws"] for a, b in zip(first, again, strict=True)), "a function of (seed, step, rank)"
    negatives = []
    for found, another in zip(first, other, strict=True):
        for at, (rows, noise) in found["draws"].items():
            assert GLOBAL_BATCH < len(rows) < CLASSES // world_size
            negatives.append(set(rows) - {0})
            assert noise == first[0]["draws"][at][1], "equal on all ranks"
            assert set(rows) != set(another["draws"][at][0])
            assert noise != another["draws"][at][1]
        assert len({tuple(noise) for _, noise in found["draws"].values()}) == 3, "another for each micro-step"
    # Ranks of as many classes count their rows alike: the same generator would draw the same rows on each.
    for one, two in itertools.combinations(negatives, 2):
        assert one != two, "two ranks, steps or micro-steps drew the same"


def test_prototypes_and_noise_do_not_know_the_number_of_ranks(ranks: RankPool) -> None:
    runs = [ranks.run(world_size, sampled, 3) for world_size in WORLD_SIZES]
    whole = runs[0][0]["weight"]
    assert len(np.unique(whole, axis=0)) == CLASSES, "every class has its own"
    for parts in runs:
        assert [part["range"][0] for part in parts[1:]] == [part["range"][1] for part in parts[:-1]]
        assert np.array_equal(np.concatenate([part["weight"] for part in parts]), whole)
        assert parts[0]["draws"][1, 1][1] == runs[0][0]["draws"][1, 1][1], "of a place in the global batch"
    (another,) = ranks.run(1, sampled, 4)
    assert not np.array_equal(another["weight"], whole)


@pytest.mark.parametrize("sampler", ["uniform", "class_balanced", "identities"])
def test_order_and_augmentation_do_not_know_the_number_of_ranks(ranks: RankPool, sampler: str) -> None:
    whole = ranks.run(1, delivered, sampler, 3)[0]
    for world_size in WORLD_SIZES[1:]:
        parts = ranks.run(world_size, delivered, sampler, 3)
        for number, (images, labels) in enumerate(whole):
            assert np.array_equal(np.concatenate([part[number][0] for part in parts]), images)
            assert np.array_equal(np.concatenate([part[number][1] for part in parts]), labels)
    other = ranks.run(1, delivered, sampler, 4)[0]
    assert not any(np.array_equal(one[0], two[0]) for one, two in zip(whole, other, strict=True))
    assert not np.array_equal(whole[0][0], whole[2][0]), "another epoch is another order and other shifts"


def test_what_stands_for_a_bad_image_is_the_images_own() -> None:
    # No rank and no number of ranks among its arguments; the batch test of bad records walks over ranks.
    first = list(itertools.islice(substitutes(5, 1000, 3, 0), 20))
    assert first == list(itertools.islice(substitutes(5, 1000, 3, 0), 20))
    for other in ((6, 1000, 3, 0), (5, 1000, 4, 0), (5, 1000, 3, 1)):
        assert first != list(itertools.islice(substitutes(*other), 20))


def test_no_other_place_draws() -> None:
    """A new draw belongs into the table above, with a test of its scope."""
    draws = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "default_rng", "manual_seed"}
    found = set()
    for room in ("losses", "sources", "training", "utils", "dataset.py", "train.py"):
        for path in sorted((REPO_ROOT / room).rglob("*.py")) if "." not in room else [REPO_ROOT / room]:
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            if names & draws:
                found.add(path.relative_to(REPO_ROOT).as_posix())
    assert found == {
        "losses/partial_fc.py",  # the head's noise
        "losses/sampling.py",  # negatives
        "losses/sharding.py",  # prototypes
        "training/build.py",  # the backbone
        "training/samples.py",  # which images --check looks at; not a part of training
        "training/step.py",  # dropout
        "utils/batch_stream.py",  # a generator that keeps the loader from moving the global one
    }
