"""The GPU benchmark where there is no GPU: its mark on the page, and the same code at sizes of no meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import AIMS, beyond, main, milliseconds, ratio
from benchmarks.gpu_steps import Cost, drawn_on, head_cost, largest, product_rate
from losses import PartialFC, build_head

CPU = torch.device("cpu")


def test_without_a_gpu_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["is_run"] is False
    assert written["markdown"].startswith("**Not yet run**")
    assert written["markdown"].count("not yet run") == 4 * 8
    assert AIMS in written["markdown"]
    assert "commit" in written


@pytest.mark.slow
def test_on_a_cpu_all_parts_run_and_the_page_keeps_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["--device", "cpu", "--tiny", "--rec", str(tmp_path / "none"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "arcface_torch left out" in printed
    assert "of the time waiting for data" in printed
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["markdown"].startswith("**Not yet run**")
    assert [row["classes"] for row in written["layer"]] == [200, 500]
    assert all(row["bf16"]["seconds"] > 0 and row["theirs"] is None for row in written["layer"])
    assert written["nets"][0]["ratio"] is None
    assert set(written["largest"]) == {"1.0", "0.1"}


def test_time_that_is_over_leaves_parts_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--tiny", "--minutes", "-1", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("left out, the time was over") == 4


def test_a_cpu_is_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cpu", "--out", str(tmp_path)])


def test_a_layer_that_does_not_fit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("benchmarks.gpu_steps.our_layer", full)
    assert head_cost(10, 2, CPU, 1) is None
    assert milliseconds(None, None, "bf16") == "out of memory"
    assert milliseconds(None, None, "theirs") == "-"  # no clone, nothing was tried


def test_the_largest_layer_is_found_downwards(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fits(num_classes: int, *_: object, **__: object) -> Cost | None:
        tried.append(num_classes)
        return Cost(1.0, 1, 1) if num_classes <= 950 else None

    monkeypatch.setattr("benchmarks.gpu_steps.head_cost", fits)
    assert largest(1.0, 8, CPU, 1000 * 512 * 4 * 3) == 940
    assert tried == [1000, 980, 960, 940]


def test_prototypes_are_drawn_where_they_will_be() -> None:
    with drawn_on(torch.device("meta")):
        fc = PartialFC(build_head("cosface"), 512, 100)
        assert torch.normal(0, 0.01, (2, 3)).device.type == "meta"
    assert fc.weight.device.type == "meta"
    assert PartialFC(build_head("cosface"), 512, 100).weight.device.type == "cpu"


def test_figures_by_hand() -> None:
    assert ratio(Cost(3.0, 0, 0), Cost(1.5, 0, 0)) == 2
    assert ratio(None, Cost(1.0, 0, 0)) is None
    assert beyond({"peak_bytes": 22, "lasting": 20}) == "1.10"
    assert product_rate(20, 2, CPU, 1, torch.float32) > 0
