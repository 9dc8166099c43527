"""The head benchmark and its step: equal losses beside a peer, arithmetic of sizes, skipped peers, what is written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import head, head_step
from benchmarks.head_step import OURS, PEER, PRODUCTS, Setting, ours, products, status_bytes, theirs
from benchmarks.measure import run_child
from benchmarks.peer import ArcFaceTorch, find_peer
from losses import HEADS

SMALL = ["--classes=300", "--dim=16", "--batch=8", "--rounds=2", "--grow=2", "--threads=1"]
# A peer of our own: the plain formula on dense logits, with the names and arguments of the real one.
FILES = {
    "losses.py": """
class CombinedMarginLoss:
    def __init__(self, s, m1, m2, m3):
        self.values = (s, m1, m2, m3)
""",
    "partial_fc_v2.py": """
import torch
from torch.nn import functional as F
class PartialFC_V2(torch.nn.Module):
    def __init__(self, margin_loss, embedding_size, num_classes, sample_rate=1.0, fp16=False):
        super().__init__()
        self.margin = margin_loss.values
        self.weight = torch.nn.Parameter(torch.randn(num_classes, embedding_size) * 0.01)
    def forward(self, embeddings, labels):
        s, _, m2, m3 = self.margin
        cosine = F.linear(F.normalize(embeddings), F.normalize(self.weight))
        own = F.one_hot(labels, len(self.weight)).bool()
        target = torch.cos(torch.acos(cosine) + m2) - m3
        return F.cross_entropy(s * torch.where(own, target, cosine), labels)
""",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (folder := tmp_path / "clone").mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def peer(clone: Path) -> ArcFaceTorch:
    found, _ = find_peer(clone)
    assert found is not None
    return found


def test_sizes_by_hand() -> None:
    setting = Setting(1000, 0.1, batch=8, embedding_size=32)
    assert setting.weight_bytes == 1000 * 32 * 4
    assert setting.active_classes == 100
    assert Setting(1000, 0.1, batch=200).active_classes == 200
    assert Setting(50, 0.1, batch=200).active_classes == 50
    assert setting.arguments() == ["--classes=1000", "--rate=0.1", "--batch=8", "--dim=32", "--head=cosface"]
    first, second = setting.batches(), setting.batches()
    assert torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("name", head_step.PEER_HEADS)
def test_both_contestants_train_alike(peer: ArcFaceTorch, name: str) -> None:
    setting = Setting(50, batch=8, embedding_size=16, head=name)
    with peer.running():
        own, other = ours(setting), theirs(peer, setting)
        other.weight.copy_(own.weight)
        losses = [(float(own.step()), float(other.step())) for _ in range(9)]
    assert losses[0][0] > losses[8][0]
    for mine, yours in losses:
        assert mine == pytest.approx(yours, rel=1e-4)
    assert torch.allclose(own.weight, other.weight, rtol=1e-3, atol=1e-3)


def test_gradient_memory_is_that_of_the_classes_in_the_step() -> None:
    layer = ours(Setting(200, 0.1, batch=8, embedding_size=16))
    before = layer.weight.clone()
    assert layer.gradient_bytes() == 20 * 16 * 4
    assert layer.gradients() == []
    assert torch.equal(layer.weight, before)
    layer.step()
    moved = (layer.weight != before).any(dim=1).sum()
    assert 0 < moved <= 20


def test_products_are_the_three_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: shapes.append((*a.shape, b.shape[1])) or multiply(a, b, out=out))
    products(Setting(100, 0.5, batch=8, embedding_size=16))()
    assert shapes == [(8, 16, 50), (8, 50, 16), (50, 8, 16)]


@pytest.mark.slow
def test_a_child_tells_its_memory(clone: Path) -> None:
    arguments = [*Setting(3000, 0.1, 8, 64).arguments(), "--steps=2"]
    own = run_child("benchmarks.head_step", [OURS, *arguments], threads=1)
    other = run_child("benchmarks.head_step", [PEER, *arguments, f"--arcface-torch={clone}"], threads=1)
    for found in (own, other):
        assert found["weight_bytes"] == 3000 * 64 * 4
        assert found["extra_bytes"] == found["peak_bytes"] - found["import_bytes"] - 2 * found["weight_bytes"]
        assert len(found["seconds"]) == 2
        assert all(math.isfinite(loss) for loss in found["losses"])
    assert own["gradient_bytes"] == 300 * 64 * 4
    assert other["gradient_bytes"] == 3000 * 64 * 4
    with pytest.raises(RuntimeError, match="has no partial_fc_v2"):
        run_child("benchmarks.head_step", [PEER, *arguments, "--arcface-torch=."], threads=1)


def test_peak_of_a_child_is_its_own() -> None:
    held = bytearray(400 << 20)  # getrusage would report this process's peak in the child
    held[::4096] = b"\1" * len(held[::4096])
    found = run_child("benchmarks.head_step", [OURS, *Setting(100, 1.0, 8, 16).arguments(), "--steps=1"], threads=1)
    if Path("/proc/self/status").is_file():
        assert found["peak_bytes"] < status_bytes("VmHWM")
    assert found["import_bytes"] <= found["peak_bytes"]


def written(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


@pytest.mark.slow
def test_the_command_beside_a_peer(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert head.main([*SMALL, f"--arcface-torch={clone}", f"--out={tmp_path}", "--head=arcface"]) == 0
    found = written(tmp_path, "head_arcface")
    grown = [head.grown_name(OURS), head.grown_name(PEER)]
    assert set(found["results"]["all"]["seconds"]) == {OURS, PEER, PRODUCTS}
    assert set(found["results"]["sampled"]["seconds"]) == {OURS, PEER, PRODUCTS, *grown}
    assert all(len(values) == 2 for values in found["results"]["sampled"]["seconds"].values())
    assert found["results"]["sampled"]["memory"][OURS]["gradient_bytes"] == 30 * 16 * 4
    assert len(found["peer"]["sha256"]) == 12
    assert {"commit", "hardware", "threads", "torch"} <= set(found)
    text = capsys.readouterr().out
    assert found["markdown"] in text
    assert "**C = 300, 30 of them sampled (rate 0.1)**" in text
    assert "Losses of the first 6 steps differ" in text
    assert "With 600 classes and the same sample" in text


def test_the_command_without_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    assert head.main([*SMALL, "--sample-rate=1", f"--out={tmp_path}"]) == 0
    found = written(tmp_path, "head")
    assert list(found["results"]) == ["all"]
    assert set(found["results"]["all"]["seconds"]) == {OURS, PRODUCTS}
    assert "arcface_torch left out" in capsys.readouterr().out
    assert found["peer"].startswith("arcface_torch left out")


def test_what_the_table_says_by_hand() -> None:
    memory = {
        "peak_bytes": 900 << 20, "extra_bytes": 50 << 20, "gradient_bytes": 10 << 20, "seconds_by_round": [0.1, 0.2],
    }  # fmt: skip
    result = {
        "seconds": {OURS: [0.2, 0.25, 0.4], PEER: [1.0, 1.0, 1.2], PRODUCTS: [0.1, 0.15, 0.2]},
        "memory": {OURS: memory, PEER: {**memory, "extra_bytes": 200 << 20, "seconds_by_round": [0.3, 0.4]}},
        "losses": {OURS: [2.0, 4.0], PEER: [2.0, 4.0004]},
    }
    size, rows, notes = head.described(Setting(1000), result, Setting(10_000))
    assert size == "**C = 1,000**, D = 512, N = 128, float32"
    assert "| ours | 250 | 200 - 400 | 1.00 | 900 | 50 | 10 |" in rows
    assert "| arcface_torch | 1000 | 1000 - 1200 | 4.00 | 900 | 200 | 10 |" in rows
    assert "| three products alone | 150 | 100 - 200 | 0.50 |  |  |  |" in rows
    assert "take 50% of our time" in notes
    assert "4.00 times as fast, in 1/4.0 of the extra memory" in notes
    assert "differ by at most 1e-04" in notes
    assert "in a process of its own: 150 ms beside 350 ms, 2.50 times as fast" in notes


@pytest.mark.slow
def test_costs_of_every_head(tmp_path: Path) -> None:
    options = ["--heads=all", "--head-classes=40", "--dim=16", "--batch=8", "--rounds=1", "--threads=1"]
    assert head.main([*options, f"--out={tmp_path}"]) == 0
    found = written(tmp_path, "heads")
    assert {HEADS[name] for name in found["seconds"]} == set(HEADS.values())
    assert len(found["seconds"]) == len(set(HEADS.values()))
    assert "| softmax |" in found["markdown"].splitlines()[4]


def test_an_unknown_head_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        head.main(["--heads=arcfase"])
    assert "no head arcfase; there are softmax" in capsys.readouterr().err
