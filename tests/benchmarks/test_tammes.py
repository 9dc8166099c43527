"""Prototypes on a sphere: known configurations against the table of optima, short runs that reach them, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.tammes import NAMES, main
from benchmarks.tammes_optimum import largest_class_margin
from benchmarks.tammes_runs import Setting, spread_out
from eval.margins import class_margin

SHORT = Setting(steps=200)
ADAMW = Setting(steps=250, lr=0.05, optimizer="adamw")


def on_circles(*circles: tuple[float, int, float]) -> Tensor:
    """Points on circles of the unit sphere: (height, how many, the angle of the first in degrees) each."""
    points = []
    for height, count, first in circles:
        radius = math.sqrt(1 - height**2)
        angles = [math.radians(first + 360 * place / count) for place in range(count)]
        points += [[radius * math.cos(angle), radius * math.sin(angle), height] for angle in angles]
    return torch.tensor(points, dtype=torch.float64)


def test_optima_have_configurations() -> None:
    height = math.sqrt(1 / (2 * math.sqrt(2) + 1))  # where a side of the square is as long as a slanting edge
    antiprism = on_circles((height, 4, 0), (-height, 4, 45))
    assert class_margin(antiprism) == pytest.approx(largest_class_margin(8, 3), abs=1e-9)
    assert class_margin(antiprism) == pytest.approx(74.8585, abs=1e-4)
    icosahedron = on_circles((1, 1, 0), (1 / math.sqrt(5), 5, 0), (-1 / math.sqrt(5), 5, 36), (-1, 1, 0))
    assert class_margin(icosahedron) == pytest.approx(largest_class_margin(12, 3), abs=1e-9)
    assert class_margin(icosahedron[:11]) == pytest.approx(largest_class_margin(11, 3), abs=1e-9)
    three_triangles = on_circles((2 / 3, 3, 0), (0, 3, 60), (-2 / 3, 3, 0))
    assert class_margin(three_triangles) <= largest_class_margin(9, 3) + 1e-9
    assert class_margin(torch.cat([torch.eye(5), -torch.eye(5)])) == pytest.approx(largest_class_margin(10, 5))


def test_optima_by_hand() -> None:
    assert largest_class_margin(2, 3) == pytest.approx(180)
    assert largest_class_margin(4, 3) == pytest.approx(109.4712, abs=1e-4)
    assert largest_class_margin(10, 10) == pytest.approx(96.3794, abs=1e-4)
    assert largest_class_margin(5, 3) == 90
    assert largest_class_margin(10, 2) == 36
    assert largest_class_margin(3, 2) == pytest.approx(120)
    assert largest_class_margin(100, 3) is None
    found = [largest_class_margin(count, 3) for count in (6, 7, 8, 9, 10, 11, 12, 14)]
    assert found == sorted(found, reverse=True)
    with pytest.raises(ValueError, match="take 2 or more classes and dimensions, got 1 and 3"):
        largest_class_margin(1, 3)


@pytest.mark.parametrize("head", NAMES)
def test_four_classes_reach_the_simplex(head: str) -> None:
    found = class_margin(spread_out(head, ["sample_margin"], 4, 3, (1, 64), 0, SHORT))
    assert found == pytest.approx(109.471, abs=0.3)


def test_eight_classes_and_who_reaches_the_antiprism() -> None:
    margins = {
        name: class_margin(spread_out(name, (), 8, 3, (64, 64), 0, ADAMW)) for name in ("lm_softmax", "normface")
    }
    assert 74.4 <= margins["lm_softmax"] <= largest_class_margin(8, 3) + 1e-9
    assert margins["normface"] < 70  # its gradient fades once every sample is right


def test_the_scale_grows_to_its_end_and_the_result_is_unit() -> None:
    soft = spread_out("lm_softmax", (), 8, 3, (4, 4), 0, ADAMW)
    sharp = spread_out("lm_softmax", (), 8, 3, (4, 400), 0, ADAMW)
    assert class_margin(soft) < 73 < 74.7 < class_margin(sharp)
    torch.testing.assert_close(sharp.norm(dim=1), torch.ones(8, dtype=torch.float64))
    again = spread_out("lm_softmax", (), 8, 3, (4, 400), 0, ADAMW)
    assert torch.equal(sharp, again)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_embeddings_on_their_prototypes(optimizer: str) -> None:
    setting = Setting(steps=250, optimizer=optimizer, embeddings="prototypes")
    assert class_margin(spread_out("lm_softmax", ["zero_centroid"], 4, 3, (1, 64), 0, setting)) > 109


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--seeds", "2", "--steps", "2", "--scales", "16,1:64", "--others", "10x2", "--out", str(tmp_path)]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "optimum 74.858" in printed
    assert "| head | s = 16 | s 1 .. 64 |" in printed
    assert "| head | 10 on S^1 |" in printed
    assert "| optimum | 36.000 |" in printed
    written = json.loads((tmp_path / "tammes.json").read_text(encoding="utf-8"))
    assert len(written["rows"]) == 4 * 4 * 2 + 4 * 2
    for row in written["rows"]:
        assert row["best"] == max(row["class_margins"])
        assert row["mean"] == pytest.approx(sum(row["class_margins"]) / 2)
    assert written["options"]["steps"] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--scales", "64,0"], "--scales: '0' is no schedule"),
        (["--scales", "1:x"], "--scales: '1:x' is no schedule"),
        (["--others", "10"], "--others: '10' is no size; write CxD"),
        (["--classes", "1"], "take 2 or more classes"),
        (["--seeds", "0"], "must be 1 or more, got 0"),
    ],
)
def test_refusals(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
