"""One step: what accumulation, ranks, clipping, precision and bad numbers do to it, on real ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.ranks import RankPool
from tests.training.runs import Weights, batches_of, make_run, weights_of
from training.precision import LossScaler
from training.state import save_run
from training.step import NonFiniteError, target_cosine, train_step


def trained(steps: int, keys: dict[str, Any], network: str = "plain") -> tuple[list[float], list[float], Weights]:
    """Losses and gradient norms of the first steps, and the weights after them."""
    run = make_run(network, **keys)
    results = [train_step(run, batches, step) for step, batches in enumerate(batches_of(run, 0, steps))]
    return [result.loss for result in results], [result.grad_norm for result in results], weights_of(run)


def assert_equal(one: Weights, other: Weights, *, atol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulation_equals_a_batch_as_large(ranks: RankPool, world_size: int, optimizer: str) -> None:
    keys = {"optimizer": optimizer, "lr": 0.01, "clip_norm": 1.0, "clip_scope": "all"}
    whole = ranks.run(world_size, trained, 2, {**keys, "batch_size": 12})[0]
    parts = ranks.run(world_size, trained, 2, {**keys, "batch_size": 4, "gradient_acc": 3})[0]
    assert parts[0] == pytest.approx(whole[0], abs=1e-5)
    assert parts[1] == pytest.approx(whole[1], abs=1e-5)
    assert_equal(parts[2], whole[2], atol=2e-5)


@pytest.mark.parametrize("clip_scope", ["backbone", "all"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_take_the_step_of_one(ranks: RankPool, world_size: int, clip_scope: str) -> None:
    keys = {"clip_norm": 0.5, "clip_scope": clip_scope}
    alone = ranks.run(1, trained, 3, {**keys, "batch_size": 12})[0]
    together = ranks.run(world_size, trained, 3, {**keys, "batch_size": 12 // world_size})
    for losses, norms, weights in together:
        assert losses == pytest.approx(alone[0], abs=1e-5)
        assert norms == pytest.approx(alone[1], abs=1e-5)
        assert_equal(weights, alone[2], atol=1e-5)


def clipped_norms(clip_scope: str) -> tuple[float, float, float]:
    """Reported norm, and norms of the applied backbone and prototype gradients of a step with a tight clip."""
    run = make_run(clip_norm=0.01, clip_scope=clip_scope, momentum=0.0, weight_decay=0.0, lr=1.0)
    before = weights_of(run)
    result = train_step(run, batches_of(run, 0, 1)[0], 0)
    moved = {name: value - before[name] for name, value in weights_of(run).items()}
    backbone = float(np.sqrt(sum((value**2).sum() for name, value in moved.items() if name.startswith("backbone/"))))
    return result.grad_norm, backbone, float(np.sqrt((moved["fc/weight"] ** 2).sum()))


def test_clipping_the_backbone_leaves_the_prototypes(ranks: RankPool) -> None:
    norm, backbone, prototypes = ranks.run(2, clipped_norms, "backbone")[0]
    assert norm > 0.01
    assert backbone == pytest.approx(0.01, rel=1e-3)
    assert prototypes > 0.05


def test_clipping_all_counts_the_prototypes_of_all_ranks(ranks: RankPool) -> None:
    norm, backbone, prototypes = ranks.run(2, clipped_norms, "all")[0]
    assert norm > 0.01
    assert np.hypot(backbone, prototypes) == pytest.approx(0.01, rel=1e-3)


def spoiled(where: str, value: float) -> tuple[str, bool]:
    """The error's text and whether the weights were left alone, with one tensor spoiled on rank 1 only."""
    run = make_run("norm")
    batches = batches_of(run, 0, 1)[0]
    if dist.get_rank() == 1:
        spoil(run, batches, where, value)
    before = weights_of(run)
    with pytest.raises(NonFiniteError) as caught:
        train_step(run, batches, 17)
    after = weights_of(run)
    running = ("running", "num_batches")
    return str(caught.value), all(
        np.array_equal(before[name], after[name], equal_nan=True)
        for name in before
        if not any(r in name for r in running)
    )


def spoil(run: Any, batches: Any, where: str, value: float) -> None:
    def replace(gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, value)

    if where == "prototypes":
        run.fc.weight.register_hook(replace)
    elif where == "gradient":
        run.backbone.conv.bias.register_hook(replace)
    elif where == "embeddings":
        run.backbone.register_forward_hook(lambda module, inputs, output: output * value)
    elif where == "weights":
        with torch.no_grad():
            run.backbone.norm.bias[0] = value


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        (
            "prototypes",
            float("inf"),
            "the gradient is not finite; first seen in the gradient of the prototypes on rank 1",
        ),
        ("gradient", float("nan"), "the gradient is not finite; first seen in the gradient of conv.bias on rank"),
        ("embeddings", float("nan"), "the loss is not finite; first seen in the embeddings (6 of 6 rows) on rank 1"),
        ("weights", float("nan"), "first seen in the weights themselves, norm.bias, on rank 1"),
    ],
)
def test_a_bad_number_on_one_rank_stops_all_before_the_update(
    ranks: RankPool, where: str, value: float, text: str
) -> None:
    results = ranks.run(2, spoiled, where, value)
    assert results[0][0] == results[1][0]
    assert results[0][0].startswith("step 17 (epoch ")
    assert text in results[0][0]
    assert all(unchanged for _, unchanged in results)


def damaged_weights(folder: str) -> str:
    run = make_run("norm", output=folder)
    if dist.get_rank() == 1:
        spoil(run, [], "weights", float("inf"))
    with pytest.raises(NonFiniteError) as caught:
        save_run(run, 4)
    return str(caught.value)


def test_damaged_weights_are_never_saved(ranks: RankPool, tmp_path: Path) -> None:
    texts = ranks.run(2, damaged_weights, str(tmp_path))
    assert texts[0] == texts[1]
    assert texts[0].startswith("after step 3: not finite: the weights themselves, norm.bias, on rank 1.")
    assert list(tmp_path.iterdir()) == []


def overflow_then_good() -> tuple[list[bool], list[float], bool, Weights]:
    """Two fp16-scaled steps on the same batch, the first with an overflow on rank 1."""
    run = make_run()
    run.scaler = LossScaler(is_active=True)
    before, batches = weights_of(run), batches_of(run, 0, 1)[0]
    last = dist.get_world_size() - 1
    hook = run.backbone.conv.weight.register_hook(lambda g: g * (torch.inf if dist.get_rank() == last else 1.0))
    first = train_step(run, batches, 0)
    unchanged = all(np.array_equal(value, before[name]) for name, value in weights_of(run).items())
    hook.remove()
    second = train_step(run, batches, 0)
    return [first.was_skipped, second.was_skipped], [first.loss_scale, second.loss_scale], unchanged, weights_of(run)


@pytest.mark.parametrize("world_size", [1, 2])
def test_fp16_overflow_is_skipped_by_all_ranks_and_scaling_changes_nothing_else(
    ranks: RankPool, world_size: int
) -> None:
    expected = ranks.run(world_size, trained, 1, {})[0][2]
    for skipped, scales, unchanged, weights in ranks.run(world_size, overflow_then_good):
        assert (skipped, scales, unchanged) == ([True, False], [65536.0, 32768.0], True)
        assert_equal(weights, expected, atol=0.0)  # the scale is a power of two: exact


def always_overflowing() -> str:
    run = make_run()
    run.scaler = LossScaler(is_active=True)
    run.backbone.conv.weight.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[union-attr]
    batches = batches_of(run, 0, 1)[0]
    for step in range(100):
        try:
            train_step(run, batches, step)
        except NonFiniteError as error:
            return str(error)
    return "never"


def test_fp16_gives_up_when_no_scale_helps(ranks: RankPool) -> None:
    text = ranks.run(1, always_overflowing)[0]
    assert text.startswith("step 30 (epoch")
    assert "the gradient of conv.weight" in text


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_stays_near_fp32(ranks: RankPool, precision: str) -> None:
    exact = ranks.run(2, trained, 2, {})[0]
    reduced = ranks.run(2, trained, 2, {"precision": precision})[0]
    assert reduced[0] == pytest.approx(exact[0], rel=0.02)
    assert reduced[0] != exact[0]
    assert_equal(reduced[2], exact[2], atol=0.05)


def stop_on_one_rank() -> list[bool]:
    run = make_run()
    return [
        train_step(run, batches, step, stop_requested=step == 1 and dist.get_rank() == 1).stop_requested
        for step, batches in enumerate(batches_of(run, 0, 2))
    ]


def test_ranks_agree_to_stop(ranks: RankPool) -> None:
    assert ranks.run(2, stop_on_one_rank) == [[False, True], [False, True]]


def cosines(head: str) -> tuple[float, float]:
    run = make_run(head=head)
    (batch,) = batches_of(run, 0, 1)[0]
    with torch.no_grad():
        pixels = batch.images.permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
        pairs = torch.nn.functional.cosine_similarity(run.backbone(pixels), run.fc.weight[batch.labels])
    train_step(run, [batch], 0)
    return target_cosine(run), float(pairs.mean())


@pytest.mark.parametrize("head", ["softmax", "cosface"])
def test_target_cosine_is_a_cosine_for_every_head(ranks: RankPool, head: str) -> None:
    logged, expected = ranks.run(1, cosines, head)[0]
    assert logged == pytest.approx(expected, abs=1e-3)
