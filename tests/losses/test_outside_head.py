"""A head written outside the package: registered by one entry, trained and resumed as any other. Proves no formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones import BACKBONES
from losses import HEADS
from losses.head import Head, SampleStatistics
from tests.ranks import RankPool
from tests.training.runs import batches_of, make_run
from training.run import Run
from training.state import resume_run, save_run
from training.step import train_step
from utils.config import ConfigError, load_config

OPTIONS = {"margin": 0.2, "start": 4.0}
KEYS = {"head": "outside", "head_options": OPTIONS, "num_epoch": 8, "lr": 0.02}


class OutsideHead(Head):
    """Everything a head may have: a learned scale, a running mean, a margin that grows with it, a warm-up, a context.

    Target logit s (cos theta_y - f m t), the others s cos theta_j; s is learned, t the running mean of cos theta_y.
    """

    normalize_embeddings = True
    normalize_prototypes = True
    supports_margin_warmup = True

    def __init__(self, margin: float = 0.2, start: float = 16.0) -> None:
        super().__init__()
        self.margin = margin
        self.log_scale = nn.Parameter(torch.tensor(start).log())
        self.register_buffer("mean_cosine", torch.tensor(0.0))

    def update(self, pre: SampleStatistics) -> None:
        self.mean_cosine.lerp_((pre.target * pre.weight).sum(), 0.1)

    def context(self, pre: SampleStatistics) -> tuple[Tensor, ...]:
        return (self.log_scale.exp().to(pre.target.dtype),)

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        return context[0] * similarity

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        margin = stats.margin_factor * self.margin * self.mean_cosine.clamp_min(0).to(stats.target.dtype)
        return self.log_scale.exp() * (stats.target - margin)


def outside_run(**keys: Any) -> Run:
    """A small run whose head is known to the registry only while it is built; nothing else is told of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HEADS, "outside", OutsideHead)
        return make_run("norm" if keys.pop("is_normed", False) else "plain", **{**KEYS, **keys})


def state_of(run: Run) -> dict[str, Tensor]:
    """Copies of everything that training moves, in particular of the head's parameter, momentum and buffer."""
    state = {f"backbone/{name}": value for name, value in run.backbone.state_dict().items()}
    state |= {f"fc/{name}": value for name, value in run.fc.sharded_state_dict().items()}
    rows = run.fc_optimizer.sharded_state_dict()
    state |= {f"head_optimizer/{name}": value for name, value in rows.pop("head")["state"].get(0, {}).items()}
    state |= {f"rows/{name}": value for name, value in rows.items()}
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}
    return {name: value.detach().clone() for name, value in whole.items()}


def go(run: Run, first: int, stop: int) -> list[float]:
    """Losses of the steps first .. stop - 1."""
    steps = enumerate(batches_of(run, first, stop - first), first)
    return [train_step(run, batches, step).loss for step, batches in steps]


def trained(steps: int, keys: dict[str, Any]) -> tuple[list[float], dict[str, Tensor]]:
    run = outside_run(**keys)
    return go(run, 0, steps), state_of(run)


def test_it_trains_on_one_and_two_ranks_alike(ranks: RankPool) -> None:
    steps = 32  # 8 epochs of 48 images
    losses, alone = ranks.run(1, trained, steps, {"batch_size": 12})[0]
    together = ranks.run(2, trained, steps, {"batch_size": 6})
    for others, state in together:
        assert others == pytest.approx(losses, abs=1e-4)
        assert state.keys() == alone.keys()
        for name, value in state.items():
            torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
        assert torch.equal(state["fc/head.log_scale"], together[0][1]["fc/head.log_scale"])
        assert torch.equal(state["fc/head.mean_cosine"], together[0][1]["fc/head.mean_cosine"])
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4]), losses
    assert abs(float(alone["fc/head.log_scale"].exp()) - OPTIONS["start"]) > 0.1
    assert float(alone["fc/head.mean_cosine"]) > 0.1


@pytest.mark.parametrize("keys", [{"optimizer": "adamw", "sample_rate": 0.5}, {"margin_warmup_epochs": 1.0}])
def test_options_of_the_engine_work_with_it(ranks: RankPool, keys: dict[str, Any]) -> None:
    losses, state = ranks.run(2, trained, 32, {"regularizers": {"sample_margin": 0.1}, **keys})[0]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), losses
    assert abs(float(state["fc/head.log_scale"].exp()) - OPTIONS["start"]) > 0.02


def interrupted(folder: str, saved_at: int, stop: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state at the checkpoint and after the last step."""
    run = outside_run(is_normed=True, output=folder)
    go(run, 0, saved_at)
    save_run(run, saved_at)
    saved = state_of(run)
    go(run, saved_at, stop)
    return saved, state_of(run)


def resumed(folder: str, batch_size: int, stop: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state as a fresh run loads it, and after the last step."""
    run = outside_run(is_normed=True, output=folder, batch_size=batch_size)
    first_step = resume_run(run).first_step
    loaded = state_of(run)
    go(run, first_step, stop)
    return loaded, state_of(run)


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("world_size", [1, 2])
def test_checkpoints_hold_its_parameter_momentum_and_buffer(ranks: RankPool, tmp_path: Path, world_size: int) -> None:
    whole = ranks.run(world_size, interrupted, str(tmp_path), 4, 8)
    continued = ranks.run(world_size, resumed, str(tmp_path), 6, 8)
    for (saved, last), (loaded, last_too) in zip(whole, continued, strict=True):
        assert {"fc/head.log_scale", "fc/head.mean_cosine", "head_optimizer/momentum_buffer"} <= saved.keys()
        assert float(saved["fc/head.mean_cosine"]) != 0
        assert differing(saved, loaded) == []
        assert differing(last, last_too) == []
    other_size = 3 - world_size
    loaded, _ = ranks.run(other_size, resumed, str(tmp_path), 6 * world_size // other_size, 4)[0]
    assert differing(whole[0][0], loaded) == []


def test_a_config_names_it_and_its_options_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "outside", OutsideHead)
    words = ["rec=anywhere", "head=outside", "margin_warmup_epochs=1.0", "interclass_filter=0.5"]
    config = load_config("base", [*words, "head_options.margin=0.3"], heads=HEADS, backbones=BACKBONES)
    assert (config.head, config.head_options) == ("outside", {"margin": 0.3})
    with pytest.raises(ConfigError, match="scale"):
        load_config("base", [*words, "head_options.scale=3.0"], heads=HEADS, backbones=BACKBONES)
