"""Every head of the registry equals its dense float64 oracle: loss and both gradients, on 1, 2 and 3 ranks."""

from __future__ import annotations

from typing import Any

import pytest

from losses import HEADS, REGULARIZERS
from tests.losses.harness import Case, compare_all, failures
from tests.oracles import HEAD_ORACLES, REGULARIZER_ORACLES
from tests.ranks import RankPool

# options beside the defaults; {} is always tried
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "normface": [{"scale": 8.0}],
    "cosface": [{"scale": 8.0, "margin": 0.2}, {"margin": 0.0}],
    "arcface": [{"scale": 8.0, "margin": 1.2}, {"margin": 0.0}],
    "combined": [
        {"scale": 16.0, "m1": 1.0, "m2": 0.3, "m3": 0.2},
        {"scale": 8.0, "m1": 1.35, "m2": 0.4, "m3": 0.1},
        {"scale": 8.0, "m1": 3.0, "m2": 0.5},  # passes pi and two pi
    ],
    "virtual_softmax": [{"virtual_logit_cap": 50.0}, {"virtual_logit_cap": None}, {"virtual_logit_cap": 2.0}],
    "svsoftmax": [
        {"virtual_logit_cap": None},
        {"margin": 0.35, "virtual_logit_cap": 50.0},
        {"margin": 0.9, "virtual_logit_cap": 2.0},
        {"margin": 1.0, "virtual_logit_cap": None},
        {"margin": 0.0, "virtual_logit_cap": None},
    ],
}
COSINE_HEADS = ["normface", "cosface", "arcface", "combined"]
WARMED_HEADS = ["cosface", "arcface", "combined", "virtual_softmax", "svsoftmax"]
BATCHES = {1: [(9,)], 2: [(5, 5), (6, 3)], 3: [(4, 4, 4), (4, 2, 3), (1, 5, 2)]}
world_sizes = pytest.mark.parametrize("world_size", [1, 2, 3])
# one name a class: an alias builds the same head
NAMES = sorted({head: name for name, head in reversed(HEADS.items())}.values())
heads = pytest.mark.parametrize("name", NAMES)


def check(ranks: RankPool, world_size: int, cases: list[Case], *, mixed: bool = True) -> None:
    """Run the cases, fail with a line for each that is off, and be sure that both kinds of sample took part."""
    by_rank = ranks.run(world_size, compare_all, cases)
    assert not failures(cases, by_rank), "\n".join(failures(cases, by_rank)[:8])
    if mixed:
        assert all(0 < outcome.num_right < outcome.num_samples for outcome in by_rank[0])


def options_of(name: str) -> list[dict[str, Any]]:
    return [{}, *OPTIONS.get(name, [])]


def test_every_head_and_regularizer_has_an_oracle() -> None:
    assert set(HEADS) <= set(HEAD_ORACLES), f"no oracle for {sorted(set(HEADS) - set(HEAD_ORACLES))}"
    assert set(REGULARIZERS) <= set(REGULARIZER_ORACLES), "a regularizer has no oracle"
    assert set(HEADS.values()) == {HEADS[name] for name in NAMES}


@world_sizes
@heads
def test_loss_and_gradients_equal_the_oracle(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(name, options, batch_sizes=sizes, chunk_size=chunk, memory_budget=budget, seed=seed)
        for options in options_of(name)
        for seed, sizes in enumerate(BATCHES[world_size])
        for chunk, budget in [(1, 0), (3, None), (5, 0), (None, None)]
    ]
    check(ranks, world_size, cases)


@world_sizes
@heads
def test_few_and_uneven_classes(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(name, options, num_classes=num_classes, batch_sizes=BATCHES[world_size][-1], chunk_size=chunk, seed=3)
        for options in options_of(name)
        for num_classes in (2, 3, 4, 7, 31)  # on 3 ranks 4 classes are 2 + 2 + 0
        for chunk in (1, None)
    ]
    check(ranks, world_size, cases, mixed=False)


@world_sizes
@heads
def test_sampled_classes(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(
            name,
            options,
            num_classes=80,
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=chunk,
            sample_rate=0.3,
            sampling_correction=correct,
            seed=5,
            step=step,
        )
        for options in options_of(name)
        for step, (chunk, correct) in enumerate([(None, False), (7, True), (None, True)])
    ]
    check(ranks, world_size, cases)


@world_sizes
@pytest.mark.parametrize("name", [name for name in COSINE_HEADS if name in HEADS])
def test_interclass_filter(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(
            name,
            options,
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=chunk,
            interclass_filter=threshold,
            sample_rate=rate,
            num_classes=20,
            seed=7,
            memory_budget=0 if chunk else None,
        )
        for options in options_of(name)
        for threshold in (0.4, 0.0, -0.999)  # the last leaves no non-target at all
        for chunk, rate in [(3, 1.0), (None, 0.5)]
    ]
    check(ranks, world_size, cases)


@world_sizes
@heads
def test_regularizers(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(
            name,
            num_classes=num_classes,
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=chunk,
            tie=tie,
            regularizers=weights,
            sample_rate=rate,
            seed=11,
        )
        for weights in ({"sample_margin": 0.7}, {"zero_centroid": 40.0}, {"sample_margin": 3.0, "zero_centroid": 2.0})
        for num_classes, chunk, rate, tie in [(10, 3, 1.0, False), (10, None, 1.0, True), (60, 7, 0.3, False)]
    ]
    check(ranks, world_size, cases)


@world_sizes
@pytest.mark.parametrize("name", [name for name in WARMED_HEADS if name in HEADS])
def test_margin_warmup(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(name, batch_sizes=BATCHES[world_size][0], margin_factor=factor, seed=13)
        for factor in (0.0, 1e-3, 0.5, 1.0)
    ]
    check(ranks, world_size, cases)
