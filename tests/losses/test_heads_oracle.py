"""Every head of the registry equals its dense float64 oracle: loss and all gradients, on 1, 2 and 3 ranks."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
from torch import Tensor

from losses import HEADS, REGULARIZERS
from tests.losses.harness import Case, buffers_of, build, compare_all, failures, forward, gathered, local_rows
from tests.losses.options import (
    COSINE_HEADS,
    NAMES,
    OPTIONS,
    RUNNING_HEADS,
    STEPS,
    WARMED_HEADS,
    cosine_options_of,
    options_of,
)
from tests.losses.problems import make_problem
from tests.oracles import HEAD_ORACLES, REGULARIZER_ORACLES, STATE_ORACLES
from tests.ranks import RankPool

BATCHES = {1: [(9,)], 2: [(5, 5), (6, 3)], 3: [(4, 4, 4), (4, 2, 3), (1, 5, 2)]}
CHUNKS = [(1, 0), (3, None), (None, None), (5, 0)]  # classes in a chunk, bytes kept of them
world_sizes = pytest.mark.parametrize("world_size", [1, 2, 3])
heads = pytest.mark.parametrize("name", NAMES)


def check(ranks: RankPool, world_size: int, cases: list[Case], *, mixed: bool = True) -> None:
    """Run the cases, fail with a line for each that is off, and be sure that both kinds of sample took part."""
    by_rank = ranks.run(world_size, compare_all, cases)
    assert not failures(cases, by_rank), "\n".join(failures(cases, by_rank)[:8])
    if mixed:  # with each of the options
        for options in {str(case.options) for case in cases}:
            of_these = [
                outcome for case, outcome in zip(cases, by_rank[0], strict=True) if str(case.options) == options
            ]
            num_right, num_samples = (sum(getattr(o, key) for o in of_these) for key in ("num_right", "num_samples"))
            assert 0 < num_right < num_samples, f"{options}: all samples are right, or all wrong"


def test_every_head_and_regularizer_has_an_oracle() -> None:
    assert set(HEADS) <= set(HEAD_ORACLES), f"no oracle for {sorted(set(HEADS) - set(HEAD_ORACLES))}"
    assert set(REGULARIZERS) <= set(REGULARIZER_ORACLES), "a regularizer has no oracle"
    assert set(RUNNING_HEADS) == set(STATE_ORACLES) & set(NAMES), "the running statistics of a head have no oracle"
    assert set(HEADS.values()) == {HEADS[name] for name in NAMES}


@heads
def test_head_and_oracle_have_the_same_options(name: str) -> None:
    of_head = inspect.signature(HEADS[name]).parameters.values()
    _, *of_oracle = inspect.signature(HEAD_ORACLES[name]).parameters.values()
    oracle_defaults = {option.name: option.default for option in of_oracle}
    assert {option.name: option.default for option in of_head} == oracle_defaults
    tried = {key for options in OPTIONS.get(name, []) for key in options}
    assert tried == set(oracle_defaults), f"OPTIONS never sets {sorted(set(oracle_defaults) - tried)}"


@world_sizes
@heads
def test_loss_and_gradients_equal_the_oracle(ranks: RankPool, name: str, world_size: int) -> None:
    sizes, steps = itertools.cycle(BATCHES[world_size]), itertools.cycle(STEPS)
    cases = [
        Case(
            name, options, batch_sizes=next(sizes), chunk_size=chunk, memory_budget=budget, seed=seed, step=next(steps)
        )
        for seed, options in enumerate(options_of(name))
        for chunk, budget in CHUNKS[: 4 if seed == 0 else 3]
    ]
    check(ranks, world_size, cases)


@world_sizes
@heads
def test_few_and_uneven_classes(ranks: RankPool, name: str, world_size: int) -> None:
    # on 3 ranks 4 classes are 2 + 2 + 0, and of 9 classes the first two belong to one rank
    options, chunks, sizes = itertools.cycle(options_of(name)), itertools.cycle((1, None)), BATCHES[world_size][-1]
    cases = [
        Case(name, next(options), classes, num_labels=labels, batch_sizes=sizes, chunk_size=next(chunks), seed=3)
        for classes, labels in [(2, None), (3, None), (4, None), (7, None), (9, 2), (31, None)]
    ]
    check(ranks, world_size, cases, mixed=False)


@world_sizes
@heads
def test_sampled_classes(ranks: RankPool, name: str, world_size: int) -> None:
    settings = itertools.cycle([(None, False), (7, True), (1, False), (None, True)])
    tried = options_of(name)
    cases = [
        Case(
            name,
            tried[step % len(tried)],
            num_classes=80 if chunk != 1 else 40,
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=chunk,
            sample_rate=0.3,
            sampling_correction=correct,
            seed=5,
            step=STEPS[step % len(STEPS)],
        )
        for step, (chunk, correct) in zip(range(max(4, len(tried))), settings, strict=False)
    ]
    check(ranks, world_size, cases, mixed=False)


@world_sizes
@pytest.mark.parametrize("name", COSINE_HEADS)
def test_interclass_filter(ranks: RankPool, name: str, world_size: int) -> None:
    options = itertools.cycle(cosine_options_of(name))
    cases = [
        Case(
            name,
            next(options),
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=chunk,
            interclass_filter=threshold,
            sample_rate=rate,
            num_classes=20,
            seed=7,
            memory_budget=0 if chunk else None,
        )
        for threshold in (0.4, 0.0, -0.999)  # the last leaves no non-target at all
        for chunk, rate in [(3, 1.0), (None, 0.5)]
    ]
    check(ranks, world_size, cases, mixed=False)


@world_sizes
@heads
def test_regularizers(ranks: RankPool, name: str, world_size: int) -> None:
    shapes = [(10, None, 1.0, True), (10, 3, 1.0, False), (60, 7, 0.3, False)]
    weights = [{"sample_margin": 0.7}, {"zero_centroid": 40.0}, {"sample_margin": 3.0, "zero_centroid": 2.0}]
    cases = [
        Case(
            name,
            num_classes=num_classes,
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=chunk,
            tie=tie,
            regularizers=regularizers,
            sample_rate=rate,
            seed=11,
        )
        for (num_classes, chunk, rate, tie), regularizers in zip(shapes, weights, strict=True)
    ]
    check(ranks, world_size, cases)


@world_sizes
@pytest.mark.parametrize("name", WARMED_HEADS)
def test_margin_warmup(ranks: RankPool, name: str, world_size: int) -> None:
    tried = options_of(name)
    cases = [
        Case(name, options, batch_sizes=BATCHES[world_size][0], margin_factor=factor, seed=13)
        for factor, options in [(0.0, {}), (1e-3, tried[-1]), (0.5, {}), (0.7, tried[-1])]
    ]
    check(ranks, world_size, cases)


@world_sizes
@pytest.mark.parametrize("name", RUNNING_HEADS)
def test_running_statistics_of_earlier_passes_enter(ranks: RankPool, name: str, world_size: int) -> None:
    cases = [
        Case(
            name,
            options,
            batch_sizes=BATCHES[world_size][-1],
            chunk_size=3,
            sample_rate=rate,
            num_classes=20,
            seed=17,
            earlier_passes=passes,
        )
        for options in options_of(name)
        for passes, rate in [(1, 1.0), (2, 0.5)]
    ]
    check(ranks, world_size, cases, mixed=False)


def buffers_around_a_pass(case: Case, is_training: bool, with_gradients: bool) -> list[dict[str, Tensor]]:
    """The head's buffers before and after a forward pass of this rank; all ranks must agree on them."""
    embeddings, prototypes, labels = make_problem(case)
    fc = build(case, prototypes).train(is_training)
    before, rows = buffers_of(fc), local_rows(case)
    with torch.set_grad_enabled(with_gradients):
        forward(fc, embeddings[rows], labels[rows], case)
    after = buffers_of(fc)
    assert all(torch.equal(other[key], after[key]) for other in gathered(after) for key in after)
    return [before, after]


@pytest.mark.parametrize("name", NAMES)
def test_only_training_passes_move_running_statistics(ranks: RankPool, name: str) -> None:
    case = Case(name, batch_sizes=(4, 1, 3))
    for is_training, with_gradients in [(True, True), (False, True), (True, False)]:
        before, after = ranks.run(3, buffers_around_a_pass, case, is_training, with_gradients)[0]
        moved = {key for key in after if not torch.equal(before[key], after[key])}
        assert bool(moved) == (is_training and with_gradients and name in RUNNING_HEADS), moved
