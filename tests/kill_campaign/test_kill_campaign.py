"""A small campaign: two deaths of one process end in the same bits as none. The long one is a script."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tests.kill_campaign.__main__ import CONFIG, Tally, one_run
from tests.kill_campaign.compare import Remains, differences, remains_of
from tests.kill_campaign.lives import live


@pytest.mark.slow
def test_killed_twice_ends_in_the_same_bits(tmp_path: Path) -> None:
    config = tmp_path / "campaign.py"
    config.write_text(CONFIG.format(images=4 * 2 * 24 // 2, interval=4))
    rng, tally = random.Random(1), Tally(1, True)
    live(config, 1, tmp_path / "whole", ["async_save=False"], None, rng)
    one_run(config, tmp_path / "run", remains_of(tmp_path / "whole"), tally, 2, 0, rng, 24, 4)
    assert (tally.kills, tally.runs, tally.equal) == (2, 1, 1), tally


def test_a_single_bit_is_a_difference() -> None:
    def remains(value: float, loss: float) -> Remains:
        return Remains([(1, 0, loss, 0.1, 1.0)], {"a": torch.tensor([value])}, {"b": torch.tensor([1.0])})

    whole = remains(0.0, 0.5)
    assert differences(whole, remains(0.0, 0.5), 1) == []
    assert differences(whole, remains(-0.0, 0.5), 1) == ["model.pt a"]
    assert differences(whole, remains(0.0, 0.5000001), 1) != []
    assert differences(whole, Remains([], whole.model, whole.checkpoint), 1) != []
