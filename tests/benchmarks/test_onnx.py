"""The benchmark of ONNX variants: every variant in both tables, nothing compared without a trained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.onnx import VARIANTS, main, parse, speed_table
from eval.pairs import write_bin
from tests.eval.faces import jpeg_pairs
from tests.tools.export.nets import tiny, traced
from tools.export import onnx_file
from tools.export.throughput import Speed


def test_all_variants_are_compared_and_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_file, "to_onnx", traced)
    torch.save(tiny().state_dict(), tmp_path / "model.pt")
    write_bin(tmp_path / "small.bin", *jpeg_pairs(12))
    command = ["--model", str(tmp_path / "model.pt"), "--data", str(tmp_path), "--targets", "small"]
    assert main([*command, "--rounds", "1", "--seconds", "0", "--results", str(tmp_path)]) == 0
    written, compared = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("onnx", "onnx_fidelity"))
    assert set(compared["pairs"]["small"]) == set(VARIANTS)
    assert compared["pairs"]["small"]["fp32"]["worst_cosine"] > 0.99999
    assert {(one["batch"], one["name"]) for one in written["speeds"]} == {
        (batch, name) for batch in (1, 8, 32) for name in ("PyTorch", *VARIANTS)
    }
    assert written["bytes"]["int8 static"] < written["bytes"]["fp16"] < written["bytes"]["fp32"]
    printed = capsys.readouterr().out
    assert compared["markdown"] in printed
    assert written["markdown"] in printed


def test_a_row_per_contestant() -> None:
    found = speed_table([Speed(1, "PyTorch", 20.4, 1, 2, 1.0), Speed(8, "PyTorch", 40.0, 1, 2, 1.0)])
    assert found.splitlines()[2] == "| PyTorch | 20 (1.00) | 40 (1.00) |"


def test_pairs_need_a_trained_model() -> None:
    with pytest.raises(SystemExit):
        parse(["--targets", "lfw"])
