"""What a run is scored on: how much there is to embed, and how long that takes, for pairs and for test images alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import open_source
from eval.bin_files import write_bin
from eval.pairs import load_pairs
from tests.eval.faces import jpeg_pairs, memory_pairs
from training import scored_data
from training.scored_data import ClassifiedImages, PairSets, _first_pairs
from utils.distributed import Ranks
from utils.images import FACE

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


class Counting(torch.nn.Module):
    """Counts the images that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return images.flatten(1)[:, :2] * self.weight + 1


def test_a_sample_of_pairs_is_a_set_of_its_own(tmp_path: Path) -> None:
    write_bin(tmp_path / "named.bin", *jpeg_pairs(6))
    sample = _first_pairs(load_pairs("named", tmp_path), 2)
    assert (len(sample.images), sample.is_same.tolist(), sample.num_folds) == (4, [True, False], 1)
    assert PairSets([sample]).num_images == 4


def test_repeated_images_are_embedded_once() -> None:
    pairs = memory_pairs(3)
    assert PairSets([pairs]).num_images == 6
    shared = replace(pairs, first_index=np.array([0, 1, 0, 3, 1, 5]))
    assert PairSets([shared]).num_images == 4
    assert PairSets([pairs, shared]).num_images == 10


def test_a_whole_scoring_is_told_from_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds time what fits into the time, twice, and multiply by what there is."""
    monkeypatch.setattr(scored_data, "MEASURED_SECONDS", 8.0)
    clock = iter(range(100))
    monkeypatch.setattr(scored_data.time, "perf_counter", lambda: float(next(clock)))
    net = Counting()
    pairs = PairSets([memory_pairs(10), memory_pairs(5)])
    # four passes an image of 0.5 s: of 8 s two pairs; a second for four images, and there are 30
    assert pairs.measure(net, FACE, ALONE, 0.5) == pytest.approx(30 / 4)
    assert net.images == 2 * 4 * 2
    net.images = 0
    test = ClassifiedImages(open_source("digits:test"))
    assert test.measure(net, test.source.image_format, ALONE, 0.5) == pytest.approx(len(test.source) / 8)
    assert net.images == 2 * 8
    assert PairSets().measure(net, FACE, ALONE, 0.5) == 0
