"""The sampling benchmark: its estimates against enumeration of every draw, and the command on a small run."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.sampling import Spread, Trained, chosen_heads, main, measure

ROOT = Path(__file__).resolve().parents[2]
CLASSES, OWN, RATE = 8, 2, 0.5  # two classes in the batch, so two of the six others are drawn: 15 draws


def made() -> Trained:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(CLASSES, 4, generator=generator)
    labels = torch.tensor([0, 1, 1])
    embeddings = torch.randn(3, 4, generator=generator, dtype=torch.float64) + weight[labels]
    return Trained({"head": "softmax"}, 0, {"weight": weight}, [(embeddings, labels)], torch.ones(CLASSES))


def dense(trained: Trained, classes: list[int], correction: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of softmax over `classes`, the first OWN of which are the batch's, and both gradients."""
    embeddings, labels = trained.batches[0]
    x, w = embeddings.clone().requires_grad_(), trained.classifier["weight"].double().requires_grad_()
    logits = x @ w[classes].T
    offset = torch.tensor([0.0] * OWN + [correction] * (len(classes) - OWN), dtype=torch.float64)
    loss = F.cross_entropy(logits + offset, labels)
    return (loss.detach(), *torch.autograd.grad(loss, [w, x]))


def relative(difference: Tensor, full: Tensor) -> float:
    return float(difference.norm() / full.norm())


@pytest.fixture(scope="module")
def rows() -> dict[bool, dict[str, Any]]:
    """Rows of softmax without and with correction."""
    return {row["corrected"]: row for row in measure(made(), "softmax", {}, [RATE], draws=600)}


@pytest.mark.parametrize("corrected", [False, True])
def test_estimates_agree_with_all_possible_draws(rows: dict[bool, dict[str, Any]], corrected: bool) -> None:
    trained, row = made(), rows[corrected]
    correction = math.log((CLASSES - OWN) / 2) if corrected else 0.0
    full = dense(trained, list(range(CLASSES)), 0.0)
    draws = [dense(trained, [0, 1, *pair], correction) for pair in itertools.combinations(range(OWN, CLASSES), 2)]
    loss, prototypes, embeddings = (torch.stack(parts) for parts in zip(*draws, strict=True))
    assert row["classes"] == OWN + 2
    assert row["loss"] == pytest.approx(float(loss.mean() / full[0]), rel=0.03)
    assert row["bias_w"] == pytest.approx(relative(prototypes.mean(0) - full[1], full[1]), abs=0.03)
    assert row["bias_o"] == pytest.approx(relative(prototypes.mean(0)[OWN:] - full[1][OWN:], full[1][OWN:]), abs=0.03)
    assert row["bias_x"] == pytest.approx(relative(embeddings.mean(0) - full[2], full[2]), abs=0.03)
    cosines = F.cosine_similarity(prototypes.flatten(1), full[1].flatten()[None])
    assert row["cos_w"] == pytest.approx(float(cosines.mean()), abs=0.02)


def test_missed_and_flips_agree_with_all_possible_draws(rows: dict[bool, dict[str, Any]]) -> None:
    trained, row = made(), rows[False]
    embeddings, labels = trained.batches[0]
    logits = embeddings @ trained.classifier["weight"].double().T
    target = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -math.inf)
    drawn = [others[:, [0, 1, *pair]].amax(1) for pair in itertools.combinations(range(OWN, CLASSES), 2)]
    hardest, full = torch.stack(drawn), others.amax(1)
    assert row["missed"] == pytest.approx(float((hardest < full).double().mean()), abs=0.05)
    assert row["flips"] == pytest.approx(float(((target >= hardest) & (target < full)).double().mean()), abs=0.05)


def test_all_classes_are_the_reference_itself() -> None:
    (row,) = measure(made(), "cosface", {"scale": 16.0}, [1.0], draws=2)
    assert [row[name] for name in ("loss", "bias_w", "bias_o", "bias_x", "missed", "flips")] == [1, 0, 0, 0, 0, 0]
    assert row["cos_w"] == pytest.approx(1)
    assert row["cos_x"] == pytest.approx(1)


def test_squared_bias_of_two_draws_is_their_product() -> None:
    """Independent draws: E[a b] = |E a|^2, so of two draws the product is what is unbiased."""
    full, first, second = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spread = Spread()
    spread.add(first, full)
    spread.add(second, full)
    assert spread.squared_bias() == pytest.approx(float((first - full) @ (second - full)))


def test_heads_take_the_runs_options_only_where_they_are_the_runs() -> None:
    config = {"head": "cosface", "head_options": {"scale": 30.0, "margin": 0.2}}
    assert chosen_heads(None, config) == [("cosface", {"scale": 30.0, "margin": 0.2})]
    assert chosen_heads("arcface:scale=20:margin=.3,cosface:margin=.1", config) == [
        ("arcface", {"scale": 20, "margin": 0.3}),
        ("cosface", {"scale": 30.0, "margin": 0.1}),
    ]
    with pytest.raises(ValueError, match="unknown head 'arcfase'"):
        chosen_heads("arcfase", config)


@pytest.mark.slow
def test_the_command_reads_a_run_and_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "small_run.py"
    config.write_text(
        "from easydict import EasyDict as edict\nconfig = edict()\nconfig.rec = 'synthetic:12:24'\n"
        "config.network, config.embedding_size, config.head = 'tiny', 8, 'svsoftmax'\n"
        "config.batch_size, config.num_epoch, config.num_workers, config.threads, config.val_targets = 6, 1, 0, 1, ()\n"
    )
    run, out = tmp_path / "run", tmp_path / "sampling.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "train.py", str(config), f"output={run}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    arguments = ["--rates", "1,.5", "--batch", "3", "--batches", "2", "--draws", "2", "--out", str(out)]
    assert main([str(run), *arguments]) == 0
    written = json.loads(out.read_text())
    assert written["step"] == 4
    assert [(row["head"], row["rate"], row["corrected"], row["classes"]) for row in written["rows"]] == [
        ("svsoftmax", 1, False, 12), ("svsoftmax", 0.5, False, 6), ("svsoftmax", 0.5, True, 6),
    ]  # fmt: skip
    assert all(math.isfinite(value) for row in written["rows"] for value in row.values() if isinstance(value, float))
    assert "missed" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no complete checkpoint"):
        main([str(tmp_path)])
