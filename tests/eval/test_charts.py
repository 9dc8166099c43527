"""Charts: ticks, thinning that loses no spike, points in their places; ROC points against brute force."""

from __future__ import annotations

import re

import numpy as np
import pytest

from eval.chart_axes import decades
from eval.charts import (
    MAX_POINTS,
    NUM_BUCKETS,
    NUM_COLOURS,
    NUM_DASHES,
    NUM_MARKS,
    Series,
    buckets,
    line_chart,
    look,
    ticks,
)
from eval.pair_metrics import evaluate_pairs
from eval.score_charts import as_steps, noise_limit, roc_points, score_histogram, shares


def drawn_points(chart):
    """Of every line longer than a sample of the legend."""
    lines = re.findall(r'points="([^"]+)"', chart)
    return [[tuple(map(float, point.split(","))) for point in line.split(" ")] for line in lines if line != "0,6 30,6"]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 10, [0, 5, 10]),
        (0, 8, [0, 2, 4, 6, 8]),
        (0.912, 0.947, [0.91, 0.92, 0.93, 0.94, 0.95]),
        (-3, 3, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (5.0, 5.0), (-2.0, -2.0), (1e-5, 1.0000000001e-5), (0, 1e9)])
def test_ticks_of_narrow_and_wide_ranges(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8


def test_decades_lie_within_and_are_few():
    assert decades(1 / 3000, 1.0) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert decades(1e-9, 1.0) == pytest.approx([1e-8, 1e-6, 1e-4, 1e-2, 1.0])
    assert decades(0.2, 0.9) == []


def test_charts_scale_their_points_into_the_drawing():
    chart = line_chart("a <b>", [Series("x", [(0, 0), (10, 4)]), Series("empty", [])])
    assert "a &lt;b&gt;" in chart
    assert drawn_points(chart) == [[(54.0, 192.0), (346.0, 12.0)]]  # left, bottom; right, top
    assert line_chart("none", [Series("empty", [])]) == ""
    assert "105%" not in line_chart("accuracy", [Series("x", [(0, 97), (1, 97)])], unit="%")
    assert "-0.5" not in line_chart("loss", [Series("x", [(0, 0), (1, 0)])])
    assert "<title>x at 3: 3</title>" in line_chart("one point", [Series("x", [(3, 3)])])
    logarithmic = line_chart("log", [Series("x", [(0.01, 0), (0.1, 0), (1, 0)])], is_log_x=True)
    assert [x for x, _ in drawn_points(logarithmic)[0]] == [54.0, 200.0, 346.0]


def test_lines_are_told_apart_without_colour():
    """Dashes and marks repeat after 20 lines only; with colours, after 60."""
    styles = [(style % NUM_DASHES, style % NUM_MARKS) for style in range(20)]
    assert len(set(styles)) == 20
    assert len({(look(style), style % NUM_MARKS) for style in range(60)}) == 60
    assert (NUM_COLOURS, look(7)) == (6, "c1 d3")
    lines = [Series(name, [(x, x + shift) for x in range(50)]) for shift, name in enumerate(("a", "b"))]
    groups = re.findall(r"<g class=.*?</g>", line_chart("two", lines))
    marks = [set(re.findall(r'class="mark"[^>]* d="([^"]+)"', group)) for group in groups]
    assert [len(found) for found in marks] == [1, 1]
    assert marks[0] != marks[1]


def test_long_lines_keep_every_extreme_in_a_band_around_their_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=24_000)
    values[12_345] = 99.0
    points = [(float(i), float(value)) for i, value in enumerate(values)]
    parts, wanted = np.array(buckets(points)), values.reshape(NUM_BUCKETS, -1)
    np.testing.assert_allclose(parts[:, 1:], np.stack([wanted.min(1), wanted.mean(1), wanted.max(1)], axis=1))
    np.testing.assert_allclose(parts[:, 0], np.arange(24_000).reshape(NUM_BUCKETS, -1).mean(1))
    chart = line_chart("long", [Series("x", points)])
    band, line = drawn_points(chart)
    assert (len(band), len(line)) == (2 * NUM_BUCKETS, NUM_BUCKETS)
    assert min(y for _, y in band) == pytest.approx(12 + 180 / 150), "99 of -50 .. 100: the spike is drawn"
    assert len(drawn_points(line_chart("exact", [Series("x", points[:2000], is_exact=True)]))[0]) == 2000
    assert len(drawn_points(line_chart("short", [Series("x", points[:MAX_POINTS])]))[0]) == MAX_POINTS
    odd = buckets(points[: MAX_POINTS + 1])
    assert len(odd) == NUM_BUCKETS


def test_roc_points_are_the_measured_rates():
    rng = np.random.default_rng(1)
    is_same = rng.random(500) < 0.4
    scores = np.round(np.clip(rng.normal(0.4 * is_same, 0.3), -1, 1), 2)  # rounded: with ties
    impostors = np.sort(scores[~is_same])[::-1]
    points = roc_points(scores, is_same)
    assert points[0][0] == 1 / len(impostors)
    assert points[-1] == (1.0, 1.0)
    assert [far for far, _ in points] == sorted({far for far, _ in points})
    for far, tar in points[:-1]:
        refused = impostors[round(far * len(impostors))]
        assert tar == pytest.approx(np.mean(scores[is_same] > refused), abs=1e-12)
        assert np.mean(scores[~is_same] > refused) <= far
    assert roc_points(scores[is_same], is_same[is_same]) == []
    assert noise_limit(is_same) == 10 / len(impostors)
    assert as_steps([(1, 5), (2, 6), (4, 9)]) == [(1, 5), (2, 5), (2, 6), (4, 6), (4, 9)]
    assert as_steps([]) == []


def test_roc_points_agree_with_the_table():
    rng = np.random.default_rng(2)
    is_same = np.arange(2000) % 2 == 0
    result = evaluate_pairs(rng.normal(size=(4000, 4)) + 1.0, is_same)
    curve = dict(roc_points(result.scores, is_same))
    near = min(curve, key=lambda far: abs(far - 0.1))
    assert near == pytest.approx(0.1, rel=0.03)
    assert curve[near] == pytest.approx(result.tar_at_far[0.1], abs=0.03)


def test_histograms_show_shares_of_each_kind():
    assert shares(np.array([-1.0, -0.999, 0.999, 1.0]), (-1.0, 1.0))[[0, -1]].tolist() == [0.5, 0.5]
    assert shares(np.array([]), (-1.0, 1.0)).sum() == 0
    assert shares(np.array([-0.9, 0.5]), (0.0, 1.0)).sum() == 1.0, "scores below the axis are drawn at its border"
    scores, is_same = np.linspace(-1, 1, 100), np.arange(100) >= 50
    drawing = score_histogram("s", scores, is_same, threshold=0.0, bounds=(-1.0, 1.0), highest=0.1)
    assert "50 same pairs, mean cosine 0.505; threshold 0.000" in drawing
    assert drawing.count('class="area"') == 4  # two, each with its sample in the legend
    one_kind = score_histogram("s", scores, is_same | True, threshold=None, bounds=(-1.0, 1.0), highest=0.1)
    assert "different" not in one_kind
    assert "threshold" not in one_kind
