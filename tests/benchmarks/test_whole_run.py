"""The whole-run benchmark on a generated set and the smallest net: what it reads, counts and leaves out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.training_loops import PARTS, Laps, config_keys
from benchmarks.whole_run import main, write_subset
from sources import open_source
from tests.records import make_record_set


def test_a_subset_takes_every_kth_image_as_it_is(tmp_path: Path) -> None:
    rec = make_record_set(tmp_path / "whole", [4, 2, 6], 112, 112)
    assert write_subset(rec, tmp_path / "part", 6) == {"name": "whole", "images": 6, "classes": 3}
    part, whole = open_source(str(tmp_path / "part")), open_source(str(rec))
    assert part.class_counts().tolist() == [2, 1, 3]
    for index in range(6):
        image, label = whole.read(2 * index)
        assert np.array_equal(part.read(index)[0], image)
        assert part.read(index)[1] == label


def test_without_data_a_set_is_generated(tmp_path: Path) -> None:
    assert write_subset(tmp_path / "nothing", tmp_path / "made", 70)["name"] == "generated"
    source = open_source(str(tmp_path / "made"))
    assert (len(source), source.num_classes, source.image_format.height) == (70, 50, 112)


def test_marks_belong_to_the_part_that_has_ended() -> None:
    laps = Laps(warm_up=1)
    net, layer = laps.watch_backbone(nn.Linear(2, 3)), laps.watch_head(nn.Linear(3, 1))
    for images, _ in laps.batches([(torch.ones(4, 2), torch.zeros(4))] * 3, 3):
        layer(net(images)).sum().backward()
        laps.mark("backbone backward")
        laps.mark("update")
    found = laps.result()
    assert laps.images == 8  # the first step is warm-up
    assert sum(found["parts"].values()) == pytest.approx(1)
    assert all(found["parts"][part] > 0 for part in PARTS)


def test_the_config_is_what_arcface_torch_does() -> None:
    options = argparse.Namespace(rec="data", network="mbf", width=512, batch=8, workers=2)
    keys = config_keys(options)
    assert (keys["head"], keys["precision"], keys["lr_power"]) == ("cosface", "fp32", 1.0)
    assert keys["head_options"] == {"scale": 64.0, "margin": 0.4}


@pytest.mark.slow
def test_the_command_without_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    arguments = ["--networks", "tiny", "--rec", str(tmp_path / "none"), "--batch", "4", "--width", "8", "--steps", "4"]
    arguments += ["--warm-up", "1", "--rounds", "1", "--workers", "0", "--threads", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "arcface_torch left out" in capsys.readouterr().out
    written = json.loads((tmp_path / "whole_run.json").read_text())
    (row,) = written["rows"]
    assert row["ratio"] is None
    assert row["images_per_second"]["train.py"] > 0
    assert 0 <= row["data_wait"] <= 1
    assert [part["loop"] for part in written["split"]] == ["train.py"]
    assert "left out" in written["peer"]


def test_warm_up_must_leave_steps() -> None:
    with pytest.raises(SystemExit):
        main(["--steps", "4", "--warm-up", "4"])
