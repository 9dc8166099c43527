"""The scaling model: its arithmetic by hand, its volumes against what real ranks send, its fit against the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.scaling_formulas import (
    H200,
    Backbone,
    Collective,
    Setting,
    exchange_seconds,
    head_flops,
    head_memory,
    head_traffic,
    step_seconds,
)
from benchmarks.scaling_measure import check, expected, measure
from benchmarks.scaling_model import main, toy_settings
from benchmarks.scaling_published import MODEL_PARALLEL, PARTIAL_FC, compare, fit, published
from losses.sampling import sample_classes


def test_a_small_setting_counted_by_hand() -> None:
    setting = Setting(4, 1000, batch_size=8, sample_rate=0.2, embedding_size=16, sub_centers=3)
    assert (setting.global_batch, setting.local_classes) == (32, 250)
    assert (setting.active_classes, setting.rows, setting.kept_share) == (50, 150, 1.0)
    assert head_flops(setting) == 3 * 2 * 32 * 16 * 150
    memory = head_memory(setting)
    assert memory["weights"] == memory["momentum"] == 250 * 3 * 16 * 4
    assert memory["gradient"] == memory["copy of sampled rows"] == 150 * 16 * 4
    assert memory["kept logits"] == 32 * 150 * 4


def test_what_does_not_fit_the_budget_is_computed_again() -> None:
    setting = Setting(1, 1000, batch_size=8, embedding_size=16, memory_budget=8 * 250 * 4)
    assert setting.kept_share == 0.25
    assert head_flops(setting) == 3.75 * 2 * 8 * 16 * 1000
    assert head_traffic(setting)["logits"] == (11 + 0.25 * 6 + 0.75 * 17) * 4 * 8 * 1000


def test_room_for_the_whole_batch_limits_what_sampling_saves() -> None:
    """Every rank must be able to hold all N positives, so a large global batch undoes the sampling."""
    assert Setting(8, 1_000_000, sample_rate=0.1).active_classes == 12_500
    assert Setting(64, 1_000_000, sample_rate=0.1).active_classes == 64 * 128 + 1
    assert not Setting(1024, 1_000_000, sample_rate=0.1).is_sampled


@pytest.mark.parametrize(("rate", "batch"), [(1.0, 4), (0.3, 4), (0.1, 16), (0.1, 400)])
def test_active_classes_are_those_that_are_sampled(rate: float, batch: int) -> None:
    setting = Setting(1, 200, batch_size=batch, sample_rate=rate)
    rows = sample_classes(torch.arange(batch) % 200, (0, 200), rate, seed=1).rows
    assert setting.active_classes == (200 if rows is None else len(rows))


def test_a_ring_sends_all_but_its_own_part() -> None:
    assert Collective("", "gather", 400).sent(4) == 300
    assert Collective("", "scatter", 400).sent(4) == 300
    assert Collective("", "reduce", 400).sent(4) == 600


def test_head_work_of_a_rank_does_not_depend_on_how_many_there_are() -> None:
    """With a fixed batch per rank, N grows as the shard shrinks."""
    assert head_flops(Setting(8, 2**20, memory_budget=1 << 50)) == head_flops(Setting(64, 2**20, memory_budget=1 << 50))


def test_seconds_of_one_rank_by_hand() -> None:
    setting = Setting(1, 1000, batch_size=8, embedding_size=16)
    seconds = step_seconds(setting, Backbone(1e9, 10), H200)
    assert seconds["backbone"] == pytest.approx(3e9 * 8 / H200.backbone_rate)
    assert seconds["head products"] == pytest.approx(3 * 2 * 8 * 16 * 1000 / H200.product_rate)
    assert seconds["head collectives"] == seconds["exposed all-reduce"] == seconds["sampling"] == 0


def test_seconds_of_a_collective_by_hand() -> None:
    """Within a node the link decides, between nodes the cards of all its devices together."""
    slow = replace(H200, network_rate=H200.node_rate / 16)
    gather = Collective("", "gather", 16_000)
    assert exchange_seconds(gather, 8, slow) == pytest.approx(14_000 / slow.node_rate + 7 * slow.hop)
    assert exchange_seconds(gather, 16, slow) == pytest.approx(15_000 / (slow.node_rate / 2) + 15 * slow.hop)
    small = Collective("", "reduce", 0)
    assert exchange_seconds(small, 1024, slow) == pytest.approx(20 * slow.latency)


def test_three_constants_describe_the_published_table() -> None:
    assert len(MODEL_PARALLEL) + len(PARTIAL_FC) == 19
    assert published(29_000_000, 0.1) == 1855
    rows = compare(fit())
    assert len(rows) == 19
    assert max(abs(row.error) for row in rows) < 0.035


@pytest.mark.slow
def test_ranks_send_what_the_formulas_say() -> None:
    """Real steps: if this fails, the step now sends something else, and scaling_formulas.collectives must follow."""
    found = measure((1, 2), [(50, 1.0), (150, 1.0), (150, 0.5)], steps=1)
    assert [(row.setting.world_size, row.setting.num_classes) for row in found] == [
        (1, 50), (1, 150), (1, 150), (2, 50), (2, 150), (2, 150),
    ]  # fmt: skip
    for row in found:
        assert row.sent == expected(row.setting, row.parameters)
    checked = check(found)
    assert [row.is_fitted for row in checked] == [True, True, False, False, False, False]
    assert all(row.is_exact and row.predicted > 0 for row in checked)
    assert checked[0].error == pytest.approx(0, abs=1e-6)


def test_the_command_writes_all_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--network", "tiny", "--out", str(tmp_path)]) == 0
    assert "not run (`--measure`)" in capsys.readouterr().out
    written = json.loads((tmp_path / "scaling_model.json").read_text())
    assert {"title", "markdown", "commit", "hardware", "predictions", "published", "measured"} <= set(written)
    assert len(written["predictions"]) == 4 * 4 * 2
    assert len(written["published"]["rows"]) == 19


def test_the_fit_needs_two_class_counts() -> None:
    with pytest.raises(Exception, match="two class counts"):
        toy_settings("100:1,200:.1")
