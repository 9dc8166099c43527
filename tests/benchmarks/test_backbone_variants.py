"""The page's table of backbones: rows, ratios, and what is left out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.backbone_variants import main, row
from utils.turns import Summary


def test_speeds_and_ratios_are_inverse_seconds() -> None:
    found = row("plain", Summary(2.0, 1.0, 4.0, 0.5), [1.0, 2.0, 4.0], argparse.Namespace(batch=8, steps=3))
    assert (found["images_per_second"], found["spread"], found["ratio"]) == (12.0, 1.5, 2.0)


def test_the_command_without_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    arguments = ["--networks", "tiny", "--variants", "plain,channels_last", "--batch", "2", "--steps", "1"]
    assert main([*arguments, "--rounds", "2", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "backbones.json").read_text())
    assert [(row["network"], row["variant"]) for row in written["rows"]] == [
        ("tiny", "plain"), ("tiny", "channels_last"),
    ]  # fmt: skip
    assert written["rows"][0]["ratio"] == 1
    assert len(written["rows"][0]["seconds"]) == 2
    assert "arcface_torch left out" in written["markdown"]


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--variants", "plain,fast"])
