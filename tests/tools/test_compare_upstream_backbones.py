"""The proof itself must be able to fail: folded key lists come back whole, and a changed net is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backbones import build_backbone
from tools.compare_upstream_backbones import TOLERANCE, compare, fold_keys, main, shapes_of, unfold_keys


@pytest.mark.parametrize("name", ["r18", "r200", "mbf", "tiny"])
def test_folding_loses_nothing(name: str) -> None:
    with torch.device("meta"):
        shapes = shapes_of(build_backbone(name))
    folded = fold_keys(shapes)
    assert unfold_keys(folded) == shapes
    if name == "r200":
        assert len(folded) < len(shapes) / 5
        assert folded["layer3.1-59.bn1.bias"] == "256"


def test_a_gap_in_the_blocks_stays_a_gap() -> None:
    shapes = {f"layer1.{block}.bn1.bias": (4,) for block in (0, 1, 3)}
    assert list(fold_keys(shapes)) == ["layer1.0-1.bn1.bias", "layer1.3-3.bn1.bias"]
    assert unfold_keys(fold_keys(shapes)) == shapes


def test_equal_nets_compare_as_equal_and_a_changed_one_does_not() -> None:
    torch.manual_seed(0)
    ours, theirs = build_backbone("tiny", embedding_size=8), build_backbone("tiny", embedding_size=8)
    ours.load_state_dict(theirs.state_dict())
    assert set(compare(ours, theirs, batch=4).values()) == {0.0}
    with torch.no_grad():
        theirs.get_parameter("fc.weight")[0, 0] += 1
    changed = compare(ours, theirs, batch=4)
    assert changed["train"] > TOLERANCE
    assert changed["eval"] > TOLERANCE


def test_a_wrong_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arcface-torch", str(tmp_path), "--networks", "r18"]) == 2
    assert "--arcface-torch must name insightface's recognition/arcface_torch" in capsys.readouterr().err
