"""Plots are whole PNG files that show something, also for sets that allow no ROC."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from eval.pair_metrics import evaluate_pairs
from eval.plots import plot_roc, plot_scores


@pytest.mark.parametrize("kinds", ["both", "same only", "different only", "one different"])
@pytest.mark.filterwarnings("error")
def test_plots_of_every_kind_of_set(tmp_path, kinds):
    rng = np.random.default_rng(0)
    is_same = {
        "both": rng.random(300) < 0.5,
        "same only": np.ones(300, dtype=bool),
        "different only": np.zeros(300, dtype=bool),
        "one different": np.arange(300) > 0,
    }[kinds]
    result = evaluate_pairs(rng.normal(size=(600, 8)) + 2 * rng.normal(size=8), is_same)
    pictures = []
    for draw in (plot_roc, plot_scores):
        draw(tmp_path / "plot.png", "a set", result, is_same)
        picture = cv2.imread(str(tmp_path / "plot.png"))
        assert picture.shape == (480, 720, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5
        pictures.append(picture)
    assert not np.array_equal(*pictures)


def test_the_same_scores_give_the_same_file(tmp_path):
    rng = np.random.default_rng(1)
    result = evaluate_pairs(rng.normal(size=(40, 8)), np.arange(20) % 2 == 0)
    for name in ("a.png", "b.png"):
        plot_roc(tmp_path / name, "a set", result, np.arange(20) % 2 == 0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
