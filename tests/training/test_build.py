"""What a run is built of: equal on any number of ranks, scheduled per step, refused where problems were found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ranks import RankPool
from tests.training.runs import Weights, batches_of, make_run, weights_of
from training.build import build_run
from training.inputs import Inputs
from utils.config import Config
from utils.distributed import Ranks

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


def built() -> tuple[Weights, Weights]:
    """Weights of two seeds."""
    return weights_of(make_run("norm", batch_size=6)), weights_of(make_run("norm", batch_size=6, seed=4))


def test_initial_weights_depend_on_the_seed_and_not_on_the_ranks(ranks: RankPool) -> None:
    alone, other_seed = ranks.run(1, built)[0]
    for weights, _ in ranks.run(3, built):
        # The blank pass that settles the buckets must leave no trace, neither in weights nor in running statistics.
        assert [name for name in alone if not np.array_equal(alone[name], weights[name])] == []
    assert not np.array_equal(alone["fc/weight"], other_seed["fc/weight"])
    assert not np.array_equal(alone["backbone/conv.weight"], other_seed["backbone/conv.weight"])


def schedules() -> list[tuple[float, float, float, float]]:
    """(returned rate, backbone's, prototypes', margin factor) of chosen steps; 8 steps an epoch."""
    run = make_run(
        head="arcface", lr=0.2, head_lr=0.4, warmup_epoch=0.5, lr_power=1.0, margin_warmup_epochs=2.0, num_epoch=3
    )
    rows = []
    for step in (0, 4, 14, 23):
        lr = run.set_schedule(step)
        rows.append(
            (lr, run.optimizer.param_groups[0]["lr"], run.fc_optimizer.param_groups[0]["lr"], run.fc.margin_factor)
        )
    return rows


def test_rates_and_margin_follow_the_step(ranks: RankPool) -> None:
    rows = ranks.run(1, schedules)[0]
    expected = [(0.04, 0.04, 0.08, 0.0), (0.2, 0.2, 0.4, 0.25), (0.1, 0.1, 0.2, 0.875), (0.01, 0.01, 0.02, 1.0)]
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted)


def optimizers() -> list[tuple[str, float, float, float]]:
    run = make_run(optimizer="sgd", momentum=0.8, weight_decay=1e-3, head_weight_decay=1e-2)
    adamw = make_run(optimizer="adamw", weight_decay=0.1)
    groups = [run.optimizer.param_groups[0], run.fc_optimizer.param_groups[0]]
    return [
        (type(run.optimizer).__name__, groups[0]["momentum"], groups[0]["weight_decay"], groups[1]["weight_decay"]),
        (type(adamw.optimizer).__name__, 0.0, adamw.optimizer.param_groups[0]["weight_decay"],
         adamw.fc_optimizer.param_groups[0]["weight_decay"]),
    ]  # fmt: skip


def test_optimizers_take_what_the_config_says(ranks: RankPool) -> None:
    assert ranks.run(1, optimizers)[0] == [("SGD", 0.8, 1e-3, 1e-2), ("AdamW", 0.0, 0.1, 0.1)]


def streams() -> list[tuple[int, ...]]:
    run = make_run(batch_size=3, gradient_acc=2)
    whole, rest = batches_of(run, 0, 4), batches_of(run, 2, 2)
    same = all(
        torch.equal(one.images, other.images)
        for a, b in zip(whole[2:], rest, strict=True)
        for one, other in zip(a, b, strict=True)
    )
    return [(run.plan.total_steps, run.plan.batches_per_epoch, run.plan.global_batch_size), (int(same),)]


def test_stream_begins_at_any_step(ranks: RankPool) -> None:
    assert ranks.run(2, streams) == [[(12, 8, 6), (1,)]] * 2


def test_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="the preflight found problems: rec: gone"):
        build_run(Config(rec="x"), ALONE, Inputs(problems=["rec: gone"]))
