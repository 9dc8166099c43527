"""Prototypes taken from another run: which class gets which, what is new, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from losses.sharding import initial_prototypes
from tests.ranks import RankPool
from tests.training import runs
from tests.training.runs import Weights, batches_of, folder_of, make_run, weights_of
from training.class_match import match_classes, write_class_names
from training.initial import load_initial_weights
from training.run import Run
from training.state import save_run
from training.step import train_step
from utils.checkpoint import CheckpointError

NAMES = ["ann", "bea", "cem", "dov", "eva", "fay", "gus"]


def run_of(classes: int, names: list[str] | None, **keys: Any) -> Run:
    """A run whose data has so many classes, with names or without."""
    with mock.patch.object(runs, "CLASSES", classes):
        run = make_run(**keys)
    if names is not None:
        run.source.names = names  # type: ignore[attr-defined]
    return run


def trained(folder: str, names: list[str] | None, keys: dict[str, Any]) -> Weights:
    """A run of 7 classes, two steps old."""
    run = run_of(7, names, output=folder, **keys)
    write_class_names(run)
    for step, batches in enumerate(batches_of(run, 0, 2)):
        train_step(run, batches, step)
    save_run(run, 2)
    return weights_of(run)


def started(folder: str, classes: int, names: list[str] | None, keys: dict[str, Any]) -> tuple[list[str], Weights]:
    """Another run that starts from it."""
    run = run_of(classes, names, **{"init_head_from": folder, "seed": 99, **keys})
    return load_initial_weights(run), weights_of(run)


def expected(there: list[int], source: Weights) -> np.ndarray:
    fresh = initial_prototypes(0, len(there), 6, 0.01, 99).numpy()
    return np.stack([fresh[here] if label < 0 else source["fc/weight"][label] for here, label in enumerate(there)])


@pytest.mark.parametrize(("saved", "loaded"), [(1, 2), (2, 3), (3, 1)])
def test_by_number_on_any_number_of_ranks(ranks: RankPool, tmp_path: Path, saved: int, loaded: int) -> None:
    source = ranks.run(saved, trained, str(tmp_path), None, {})[0]
    for lines, weights in ranks.run(loaded, started, str(tmp_path), 7, None, {}):
        assert np.array_equal(weights["fc/weight"], source["fc/weight"])
        assert not weights["rows/momentum"].any(), "momentum begins at zero"
        assert lines == [
            "init_head_from: prototypes of 7 of 7 classes taken, matched by number; 0 new ones as initialised; 0 of 7 "
            f"classes there not used; from {tmp_path}/checkpoints/step_000000002"
        ]
    assert match_classes(None, 7, tmp_path, 7, None).to_dict() == {
        "matched_by": "number", "loaded": 7, "initialised": 0, "skipped": 0, "classes": 7, "classes_there": 7,
    }  # fmt: skip


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_by_name_where_both_runs_know_them(ranks: RankPool, tmp_path: Path, world_size: int) -> None:
    source = ranks.run(2, trained, str(tmp_path), NAMES, {})[0]
    assert (tmp_path / "classes.txt").read_text().split() == NAMES
    here = ["cem", "new", "ann", "gus", "other"]
    for lines, weights in ranks.run(world_size, started, str(tmp_path), 5, here, {}):
        assert np.array_equal(weights["fc/weight"], expected([2, -1, 0, 6, -1], source))
        assert "prototypes of 3 of 5 classes taken, matched by name; 2 new ones as initialised; 4 of 7 " in lines[0]


def test_by_a_list_with_new_classes_and_one_taken_twice(ranks: RankPool, tmp_path: Path) -> None:
    source = ranks.run(1, trained, str(tmp_path), None, {})[0]
    class_map = tmp_path / "map.txt"
    class_map.write_text("6\n-\n6\n0\n")
    keys = {"init_class_map": str(class_map), "init_head_from": str(tmp_path / "checkpoints/step_000000002")}
    lines, weights = ranks.run(2, started, str(tmp_path), 4, None, keys)[1]
    assert np.array_equal(weights["fc/weight"], expected([6, -1, 6, 0], source))
    assert f"matched by the list {class_map}, 1 of them by several classes here; 1 new" in lines[0]


def test_the_heads_own_numbers_come_along_where_it_is_the_same_head(ranks: RankPool, tmp_path: Path) -> None:
    source = ranks.run(2, trained, str(tmp_path), None, {"head": "curricularface", "head_lr": 1.0})[0]
    assert source["fc/head.mean_cosine"] != 0
    lines, weights = ranks.run(1, started, str(tmp_path), 7, None, {"head": "curricularface"})[0]
    assert weights["fc/head.mean_cosine"] == source["fc/head.mean_cosine"]
    assert len(lines) == 1
    lines, _ = ranks.run(1, started, str(tmp_path), 7, None, {"head": "arcface"})[0]
    assert lines[1] == "init_head_from: head 'curricularface' there, 'arcface' here: only prototypes are taken"


def per_class(folder: str) -> tuple[list[str], list[float], list[float]]:
    """A head with a number per class and one in all, taken into another whose numbers differ."""
    runs_here = [run_of(7, None, output=folder, init_head_from=folder, head="arcface") for _ in range(2)]
    for factor, run in enumerate(runs_here, 1):
        run.fc.head.register_buffer("counts", torch.arange(7.0) * factor)
        run.fc.head.register_buffer("pace", torch.ones(2) * factor)
    save_run(runs_here[0], 1)
    lines = load_initial_weights(runs_here[1])
    state = runs_here[1].fc.head.state_dict()
    return lines, state["counts"].tolist(), state["pace"].tolist()


def test_what_a_head_keeps_per_class_stays_its_own(ranks: RankPool, tmp_path: Path) -> None:
    lines, counts, pace = ranks.run(1, per_class, str(tmp_path))[0]
    assert lines[1] == "init_head_from: of the head, left as initialised (per class, or of another shape): counts"
    assert (counts, pace) == ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("keys", "classes", "message"),
    [
        ({"embedding_size": 5}, 7, r"are \(7, 6\), embedding_size 6; here it is 5. Set embedding_size=6"),
        ({"head": "subcenter_arcface"}, 7, r"are \(7, 6\), 1 per class; the head here keeps 3. Set head_options"),
        ({}, 5, "7 classes in .*, 5 here, and the names are not known on both sides.*Give init_class_map=FILE"),
        ({"init_head_from": "/nowhere"}, 7, "/nowhere is neither a run folder with a complete checkpoint nor"),
    ],
)
def test_what_does_not_fit_is_refused_on_all_ranks(
    ranks: RankPool, tmp_path: Path, keys: dict[str, Any], classes: int, message: str
) -> None:
    ranks.run(1, trained, str(tmp_path), None, {})
    with pytest.raises(CheckpointError, match=message):
        ranks.run(2, started, str(tmp_path), classes, None, keys)


def test_a_damaged_checkpoint_is_refused(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(1, trained, str(tmp_path), None, {})
    (path,) = (tmp_path / "checkpoints/step_000000002").glob("*.distcp")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: .*Name an earlier checkpoint of that run"):
        ranks.run(2, started, str(tmp_path), 7, None, {})


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (None, "0\n1", "map.txt: it has 2 lines, this run has 3 classes"),
        (
            None,
            "0\nann\n4\n",
            r"line 2: 'ann'; line 3: '4': expected a number in 0 \.\. 3 \(the run there has no class",
        ),
        (NAMES[:4], "ann\n0\n\n", "line 2: '0'; line 3: '': expected one of the 4 names there .as 'ann', 'bea', 'cem'"),
        (NAMES[:3], "-\n-\n-\n", r"classes.txt: it names 3 classes, the run's checkpoint has 4"),
        ([*NAMES[:3], "ann"], "-\n-\n-\n", "classes.txt: 'ann' is there 2 times"),
    ],
)
def test_a_bad_list_names_its_lines(tmp_path: Path, names: list[str] | None, text: str, message: str) -> None:
    if names:
        (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        match_classes(None, 3, tmp_path, 4, str(tmp_path / "map.txt"))


def test_runs_without_a_name_in_common_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ann\r\nbea\r\n")
    with pytest.raises(
        CheckpointError, match=r"no class here has a name of .*: the first there are 'ann', 'bea', here"
    ):
        match_classes(["x", "y"], 2, tmp_path, 2, None)
    assert match_classes(["x", "bea"], 2, tmp_path, 2, None).there.tolist() == [-1, 1]


def no_names(folder: str) -> bool:
    run = run_of(7, [*NAMES[:6], "two\nlines"], output=folder)
    write_class_names(run)
    return (folder_of(run) / "classes.txt").exists()


def test_names_that_are_no_lines_are_not_written(ranks: RankPool, tmp_path: Path) -> None:
    assert ranks.run(1, no_names, str(tmp_path)) == [False]
