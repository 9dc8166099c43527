"""PartialFC around the heads: who owns and samples what, what it refuses, precision, memory, no process group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from losses import HEADS, PartialFC, build_head
from tests.losses.harness import (
    EMBEDDING_SIZE,
    Case,
    build,
    compare,
    forward,
    local_rows,
    make_problem,
    prototype_gradient,
    relative,
    world,
)
from tests.ranks import RankPool

ALL_HEADS = sorted({head: name for name, head in reversed(HEADS.items())}.values())  # one name a class


def initial_prototypes(num_classes: int, seed: int) -> tuple[tuple[int, int], Tensor]:
    fc = PartialFC(build_head("softmax"), EMBEDDING_SIZE, num_classes, seed=seed)
    return tuple(fc.class_range), fc.weight.detach().clone()


def test_classes_are_split_like_shard_0(ranks: RankPool) -> None:
    expected = {(10, 3): [(0, 4), (4, 8), (8, 10)], (4, 3): [(0, 2), (2, 4), (4, 4)], (7, 2): [(0, 4), (4, 7)]}
    for (num_classes, size), blocks in expected.items():
        found = ranks.run(size, initial_prototypes, num_classes, 0)
        assert [block for block, _ in found] == blocks
        assert [len(weight) for _, weight in found] == [stop - start for start, stop in blocks]


def test_initial_prototypes_do_not_depend_on_the_number_of_ranks(ranks: RankPool) -> None:
    whole = [torch.cat([w for _, w in ranks.run(size, initial_prototypes, 23, 7)]) for size in (1, 2, 3)]
    assert torch.equal(whole[0], whole[1])
    assert torch.equal(whole[0], whole[2])
    assert len(torch.unique(whole[0], dim=0)) == 23
    assert not torch.equal(whole[0], torch.cat([w for _, w in ranks.run(1, initial_prototypes, 23, 8)]))
    assert 0 < whole[0].std() < 1


def sampled_over_steps(case: Case, num_steps: int) -> list[tuple[list[int], list[int]]]:
    """For every step: the sampled ids of this rank, and those of a second run with the same seed."""
    embeddings, prototypes, labels = make_problem(case)
    rows, found = local_rows(case), []
    first, second = build(case, prototypes), build(case, prototypes)
    for step in range(num_steps):
        pair = []
        for fc in (first, second):
            forward(fc, embeddings[rows], labels[rows], case, step=step)
            pair.append(fc.sampled_classes.tolist())
        found.append((pair[0], pair[1]))
    return found


@pytest.mark.parametrize("sizes", [(7,), (4, 3), (1, 2, 1)])
def test_sampled_classes_are_the_positives_and_fresh_negatives(ranks: RankPool, sizes: tuple[int, ...]) -> None:
    case = Case("softmax", num_classes=90, batch_sizes=sizes, sample_rate=0.2)
    labels = set(make_problem(case)[2].tolist())
    block = -(-90 // len(sizes))
    offsets = []
    for rank, steps in enumerate(ranks.run(len(sizes), sampled_over_steps, case, 4)):
        start, stop = rank * block, min(90, (rank + 1) * block)
        positives = {label for label in labels if start <= label < stop}
        gathered = len(sizes) * max(sizes)  # padding included
        count = max(round(0.2 * (stop - start)), min(gathered + 1, stop - start))
        for sampled, again in steps:
            assert sampled == again  # a function of (seed, step)
            assert sampled == sorted(set(sampled))
            assert positives <= set(sampled) <= set(range(start, stop))
            assert len(sampled) == count
        assert len({tuple(sampled) for sampled, _ in steps}) > 1
        offsets.append([tuple(c - start for c in sampled if c not in positives) for sampled, _ in steps])
    assert len(offsets) == 1 or offsets[0] != offsets[1]  # ranks do not draw the same negatives


def test_ranks_do_not_draw_the_same_negatives(ranks: RankPool) -> None:
    case = Case("softmax", num_classes=90, batch_sizes=(3, 3, 3), sample_rate=0.2, num_labels=1)  # all on rank 0
    assert make_problem(case)[2].max() < 30
    _, second, third = ranks.run(3, sampled_over_steps, case, 3)
    for (ours, _), (theirs, _) in zip(second, third, strict=True):
        assert [class_id - 30 for class_id in ours] != [class_id - 60 for class_id in theirs]


def refuse(case: Case, bad_label: int, bad_rank: int) -> tuple[str, str]:
    embeddings, prototypes, labels = make_problem(case)
    rank, _ = world()
    rows = local_rows(case)
    fc = build(case, prototypes)
    mine = labels[rows].clone()
    if rank == bad_rank:
        mine[0] = bad_label
    with pytest.raises((ValueError, IndexError)) as caught:
        forward(fc, embeddings[rows], mine, case)
    return type(caught.value).__name__, str(caught.value)


@pytest.mark.parametrize("bad_label", [-1, 10, 12345])
def test_a_label_out_of_range_is_an_error_on_every_rank(ranks: RankPool, bad_label: int) -> None:
    for sizes in [(3,), (3, 2), (2, 2, 2)]:
        for _, message in ranks.run(len(sizes), refuse, Case("softmax", batch_sizes=sizes), bad_label, len(sizes) - 1):
            assert "label" in message
            assert str(bad_label) in message
            assert "9" in message or "10" in message  # what is allowed


def test_fewer_than_two_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="2"):
        PartialFC(build_head("softmax"), EMBEDDING_SIZE, 1)


def test_build_head_errors_name_the_right_ones() -> None:
    with pytest.raises(ValueError, match="arcface") as caught:
        build_head("arcfase")
    assert "arcfase" in str(caught.value)
    assert "cosface" in str(caught.value)
    with pytest.raises((ValueError, TypeError), match="margin"):
        build_head("cosface", margn=0.3)


@pytest.mark.parametrize("name", ALL_HEADS)
def test_without_torch_distributed(name: str) -> None:
    for case in (Case(name, batch_sizes=(1,)), Case(name, batch_sizes=(9,), chunk_size=3)):
        assert compare(case).worst() <= 1e-9


def test_without_torch_distributed_in_a_process_that_never_had_a_group(ranks: RankPool) -> None:
    assert ranks.run(1, compare, Case("svsoftmax"), group=False)[0].worst() <= 1e-9


def kept_and_recomputed(case: Case) -> list[tuple[Tensor, Tensor, Tensor]]:
    embeddings, prototypes, labels = make_problem(case)
    rows, found = local_rows(case), []
    for budget in (0, None, 10**9):
        fc = build(case, prototypes, memory_budget=budget)
        local = embeddings[rows].clone().requires_grad_()
        loss = forward(fc, local, labels[rows], case)
        loss.backward()
        assert local.grad is not None
        found.append((loss.detach(), local.grad, prototype_gradient(fc)))
    return found


@pytest.mark.parametrize("name", ALL_HEADS)
def test_keeping_and_recomputing_logits_give_the_same_gradient(ranks: RankPool, name: str) -> None:
    for found in ranks.run(2, kept_and_recomputed, Case(name, num_classes=30, batch_sizes=(5, 3), chunk_size=4)):
        for other in found[1:]:
            assert max(relative(left, right) for left, right in zip(found[0], other, strict=True)) <= 1e-14


def statistics_of(case: Case) -> dict[str, Any]:
    embeddings, prototypes, labels = make_problem(case)
    rows = local_rows(case)
    fc = build(case, prototypes)
    forward(fc, embeddings[rows].requires_grad_(), labels[rows], case)
    stats = fc.last_statistics
    return {name: getattr(stats, name) for name in ("target", "embedding_norm", "prototype_norm", "hardest", "labels")}


def test_last_statistics_are_those_of_the_global_batch_and_detached(ranks: RankPool) -> None:
    case = Case("softmax", batch_sizes=(3, 4))
    embeddings, prototypes, labels = make_problem(case)
    products = embeddings @ prototypes.T
    own = torch.nn.functional.one_hot(labels, 10).bool()
    for found in ranks.run(2, statistics_of, case):
        real = slice(None) if len(found["target"]) == 7 else [0, 1, 2, 4, 5, 6, 7]  # padded to 4 + 4
        assert not any(value.requires_grad for value in found.values())
        assert torch.allclose(found["target"][real], products[own], rtol=1e-12)
        assert torch.allclose(found["hardest"][real], products.masked_fill(own, -1e300).amax(1), rtol=1e-12)
        assert torch.allclose(found["embedding_norm"][real], embeddings.norm(dim=1), rtol=1e-12)
        assert torch.allclose(found["prototype_norm"][real], prototypes[labels].norm(dim=1), rtol=1e-12)
        assert torch.equal(found["labels"][real], labels)


def upstream(case: Case, factor: float) -> tuple[Tensor, Tensor]:
    embeddings, prototypes, labels = make_problem(case)
    rows = local_rows(case)
    fc = build(case, prototypes)
    local = embeddings[rows].clone().requires_grad_()
    (forward(fc, local, labels[rows], case) * factor).backward()
    assert local.grad is not None
    return local.grad, prototype_gradient(fc)


def test_the_upstream_gradient_multiplies_both_gradients(ranks: RankPool) -> None:
    case = Case("arcface", batch_sizes=(4, 4))
    for plain, scaled in zip(ranks.run(2, upstream, case, 1.0), ranks.run(2, upstream, case, 1024.0), strict=True):
        assert all(torch.equal(one * 1024, other) for one, other in zip(plain, scaled, strict=True))
