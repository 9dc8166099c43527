"""The optimizers of the prototypes: torch's own on the dense oracle at full rate, touched rows only when sampling."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from losses import PartialFC
from tests.losses.harness import (
    Case,
    build,
    forward,
    gathered,
    local_rows,
    make_problem,
    oracle_loss,
    prototype_gradient,
    relative,
    sampling_shift,
)
from tests.oracles import Dense
from tests.ranks import RankPool

SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.02},
    "adamw": {"lr": 0.05, "weight_decay": 0.3},
}
TORCH = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
optimizers = pytest.mark.parametrize("kind", ["sgd", "adamw"])
world_sizes = pytest.mark.parametrize("world_size", [1, 2, 3])
SIZES = {1: (6,), 2: (4, 3), 3: (2, 3, 2)}


class RowReference:
    """Updates of single rows: a row's momentum, decay and step count advance only when it is touched."""

    def __init__(self, weight: Tensor, kind: str, **settings: float) -> None:
        self.weight, self.kind, self.settings = weight.clone(), kind, settings
        self.first, self.second = torch.zeros_like(weight), torch.zeros_like(weight)
        self.count = torch.zeros(len(weight), 1, dtype=weight.dtype)

    def step(self, gradient: Tensor, rows: Tensor) -> None:
        """Touch `rows` (bool, (C,)) with the gradient (C, D)."""
        lr, decay = self.settings["lr"], self.settings["weight_decay"]
        old, touched = self.weight, rows[:, None]
        if self.kind == "sgd":
            first = self.settings["momentum"] * self.first + gradient + decay * old
            new, second = old - lr * first, self.second
        else:
            count = self.count + 1
            first = 0.9 * self.first + 0.1 * gradient
            second = 0.999 * self.second + 0.001 * gradient.square()
            scaled = first / (1 - 0.9**count) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
            new = old * (1 - lr * decay) - lr * scaled
        self.weight = torch.where(touched, new, old)
        self.first = torch.where(touched, first, self.first)
        self.second = torch.where(touched, second, self.second)
        self.count = torch.where(touched, self.count + 1, self.count)


def backward(fc: PartialFC, case: Case, seed: int, **steps: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Forward and backward of the batch `seed`; its embeddings, labels and what sampling did to the classes."""
    embeddings, _, labels = make_problem(replace(case, seed=seed))
    rows = local_rows(case)
    forward(fc, embeddings[rows].requires_grad_(), labels[rows], case, **steps).backward()
    return embeddings, labels, sampling_shift(fc, case, labels)


def dense_gradient(weight: Tensor, batch: tuple[Tensor, Tensor, Tensor | None], case: Case) -> Tensor:
    """(C, D) gradient of the oracle at the given prototypes."""
    embeddings, labels, shift = batch
    dense = weight.clone().requires_grad_()
    loss = oracle_loss(Dense(embeddings, dense, labels, shift, case.interclass_filter), case)
    return torch.autograd.grad(loss, dense)[0]


def train_fully(case: Case, kind: str, num_steps: int) -> float:
    """Worst error of this rank's rows against torch's optimizer on the dense oracle, the rate changing each step."""
    _, prototypes, _ = make_problem(case)
    fc, worst = build(case, prototypes), 0.0
    optimizer = fc.make_optimizer(kind, **SETTINGS[kind])
    dense = prototypes.clone().requires_grad_()
    reference = TORCH[kind]([dense], **SETTINGS[kind])
    start, stop = fc.class_range
    for step in range(num_steps):
        for group in [*optimizer.param_groups, *reference.param_groups]:
            group["lr"] = SETTINGS[kind]["lr"] / (1 + step)
        optimizer.zero_grad()
        batch = backward(fc, case, seed=step, step=step)
        optimizer.step()
        dense.grad = dense_gradient(dense.detach(), batch, case)
        reference.step()
        worst = max(worst, relative(fc.weight.detach(), dense.detach()[start:stop]))
    return worst


@optimizers
@world_sizes
def test_full_rate_equals_torch_on_the_dense_oracle(ranks: RankPool, kind: str, world_size: int) -> None:
    for head in ("svsoftmax", "cosface"):
        for num_classes in (10, 4):  # 4 over 3 ranks leaves the last one none
            case = Case(head, num_classes=num_classes, batch_sizes=SIZES[world_size])
            assert max(ranks.run(world_size, train_fully, case, kind, 5)) <= 1e-9


def train_sampled(case: Case, kind: str, num_steps: int, micro_steps: int) -> tuple[float, bool, int]:
    """(worst error against RowReference, whether unsampled rows stayed bit for bit, number of untouched rows)."""
    _, prototypes, _ = make_problem(case)
    fc, worst, stayed, untouched = build(case, prototypes), 0.0, True, 0
    optimizer = fc.make_optimizer(kind, **SETTINGS[kind])
    reference = RowReference(prototypes, kind, **SETTINGS[kind])
    start, stop = fc.class_range
    for step in range(num_steps):
        optimizer.zero_grad()
        before = fc.weight.detach().clone()
        gradient, rows = torch.zeros_like(prototypes), torch.zeros(case.num_classes, dtype=torch.bool)
        for micro_step in range(micro_steps):
            batch = backward(fc, case, seed=10 * step + micro_step, step=step, micro_step=micro_step)
            assert batch[2] is not None
            present = batch[2] > -math.inf
            gradient += torch.where(present[:, None], dense_gradient(reference.weight, batch, case), 0.0)
            rows |= present
        if micro_steps > 1:
            fc.scale_grads_(1 / micro_steps)
        optimizer.step()
        reference.step(gradient / micro_steps, rows)
        after = fc.weight.detach()
        stayed &= torch.equal(after[~rows[start:stop]], before[~rows[start:stop]])
        untouched += int((~rows).sum())
        worst = max(worst, relative(after, reference.weight[start:stop]))
    return worst, stayed, untouched


@optimizers
@world_sizes
@pytest.mark.parametrize("micro_steps", [1, 2])
def test_sampling_touches_sampled_rows_only(ranks: RankPool, kind: str, world_size: int, micro_steps: int) -> None:
    for regularizers in ({}, {"zero_centroid": 50.0}):
        case = Case(
            "arcface", num_classes=70, batch_sizes=SIZES[world_size], sample_rate=0.25, regularizers=regularizers
        )
        for worst, stayed, untouched in ranks.run(world_size, train_sampled, case, kind, 6, micro_steps):
            assert worst <= 1e-9
            assert stayed
            assert untouched > 0


def accumulate_fully(case: Case, kind: str) -> float:
    """One step from three micro-batches at full rate, against torch on the mean gradient."""
    _, prototypes, _ = make_problem(case)
    fc = build(case, prototypes)
    optimizer = fc.make_optimizer(kind, **SETTINGS[kind])
    dense = prototypes.clone().requires_grad_()
    reference = TORCH[kind]([dense], **SETTINGS[kind])
    batches = [backward(fc, case, seed=micro_step, micro_step=micro_step) for micro_step in range(3)]
    fc.scale_grads_(torch.tensor(1 / 3, dtype=torch.float64))
    dense.grad = sum((dense_gradient(prototypes, batch, case) for batch in batches), torch.zeros_like(prototypes)) / 3
    start, stop = fc.class_range
    norm = sum(gathered(float(fc.squared_grad_norm())))
    gradient_error = relative(prototype_gradient(fc), dense.grad[start:stop])
    optimizer.step()
    reference.step()
    norm_error = abs(norm / float(dense.grad.square().sum()) - 1)
    return max(norm_error, gradient_error, relative(fc.weight.detach(), dense.detach()[start:stop]))


@optimizers
@world_sizes
def test_micro_batches_average_and_the_norm_is_that_of_all_rows(ranks: RankPool, kind: str, world_size: int) -> None:
    case = Case("cosface", num_classes=11, batch_sizes=SIZES[world_size])
    assert max(ranks.run(world_size, accumulate_fully, case, kind)) <= 1e-9


def state_of(fc: PartialFC, optimizer: Any) -> dict[str, Any]:
    return {"fc": fc.sharded_state_dict(), "optimizer": optimizer.sharded_state_dict()}


def continue_training(
    case: Case, kind: str, first: int, stop: int, load: str | None, save: str | None
) -> tuple[Tensor, Tensor | None]:
    """Steps first .. stop - 1 from a checkpoint on any world size; this rank's rows, loaded rows before the steps."""
    from torch.distributed import checkpoint

    _, prototypes, _ = make_problem(case)
    fc = build(case, prototypes if load is None else torch.full_like(prototypes, 7.0))
    optimizer = fc.make_optimizer(kind, **SETTINGS[kind])
    loaded = None
    if load is not None:
        state = state_of(fc, optimizer)
        checkpoint.load(state, checkpoint_id=load)
        fc.load_sharded_state_dict(state["fc"])
        optimizer.load_sharded_state_dict(state["optimizer"])
        loaded = fc.weight.detach().clone()
    for step in range(first, stop):
        optimizer.zero_grad()
        backward(fc, case, seed=step, step=step)
        optimizer.step()
    if save is not None:
        checkpoint.save(state_of(fc, optimizer), checkpoint_id=save)
    return fc.weight.detach().clone(), loaded


@optimizers
def test_a_checkpoint_moves_from_2_ranks_to_3_to_1(ranks: RankPool, kind: str, tmp_path: Path) -> None:
    case = Case("svsoftmax", num_classes=10, batch_sizes=(6,), regularizers={"zero_centroid": 5.0})
    two, three = str(tmp_path / "two"), str(tmp_path / "three")
    on_two = ranks.run(2, continue_training, replace(case, batch_sizes=(3, 3)), kind, 0, 2, None, two)
    on_three = ranks.run(3, continue_training, replace(case, batch_sizes=(2, 2, 2)), kind, 2, 4, two, three)
    on_one = ranks.run(1, continue_training, case, kind, 4, 6, three, None)
    uninterrupted = ranks.run(1, continue_training, case, kind, 0, 6, None, None)[0][0]
    saved = torch.cat([weight for weight, _ in on_two])
    assert torch.equal(saved, torch.cat([loaded for _, loaded in on_three]))
    assert torch.equal(torch.cat([weight for weight, _ in on_three]), on_one[0][1])
    assert relative(on_one[0][0], uninterrupted) <= 1e-9


@optimizers
def test_a_checkpoint_of_sampled_rows_keeps_each_rows_own_state(ranks: RankPool, kind: str, tmp_path: Path) -> None:
    case = Case("cosface", num_classes=60, batch_sizes=(5,), sample_rate=0.2)
    folder = str(tmp_path / "saved")
    ranks.run(1, continue_training, case, kind, 0, 4, None, folder)
    resumed = ranks.run(1, continue_training, case, kind, 4, 8, folder, None)[0][0]
    assert torch.equal(resumed, ranks.run(1, continue_training, case, kind, 0, 8, None, None)[0][0])


def test_an_unknown_optimizer_is_named() -> None:
    fc = build(Case("softmax"), make_problem(Case("softmax"))[1])
    with pytest.raises(ValueError, match="adamw") as caught:
        fc.make_optimizer("adam", lr=0.1)
    assert "sgd" in str(caught.value)
