"""Bad data in a run of several ranks: the same decision on all of them, before anything is updated."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import BACKBONES
from dataset import Source, open_source
from sources.synthetic import SyntheticSource
from tests.damage import REASONS, SIZE, make_damaged_set
from tests.ranks import RankPool
from tests.training.runs import PlainNet, make_ranks, weights_of
from training.build import build_run, build_stream
from training.inputs import Inputs
from training.run import Run
from training.step import train_step
from utils.bad_records import BAD_RECORDS, BadImage, BadRecords, ReaderError
from utils.config import Config
from utils.errors import DataError
from utils.images import ImageFormat

HALF = [index for index in range(24) if index % 2]


class _Net(PlainNet):
    image_size = SIZE

    def __init__(self, embedding_size: int, dropout: float, gradient_checkpointing: bool, in_channels: int) -> None:
        super().__init__(embedding_size, dropout, gradient_checkpointing, in_channels)
        self.fc.__init__(4 * 49, embedding_size)  # type: ignore[misc]


def run_on(source: Source, **keys: Any) -> Run:
    """A run of 8 images a global batch, on however many ranks there are."""
    ranks = make_ranks()
    settings: dict[str, Any] = {
        "rec": "?", "network": "bad-data-net", "embedding_size": 6, "head": "softmax", "num_epoch": 2, "seed": 3,
        "batch_size": 8 // ranks.world_size, "num_workers": 0, "channels_last": False, "output": "",
    }  # fmt: skip
    BACKBONES["bad-data-net"] = _Net
    try:
        return build_run(Config(**{**settings, **keys}), ranks, Inputs(source))
    finally:
        del BACKBONES["bad-data-net"]


def train(source: Source, first_step: int, steps: int, **keys: Any) -> dict[str, Any]:
    """Trains some steps; what came of it, and the error instead of raising it."""
    run = run_on(source, **keys)
    lines: list[str] = []
    run.bad_records.say = lines.append
    stream, done, error = iter(build_stream(run, first_step)), first_step, None
    before = weights_of(run)
    try:
        for step in range(first_step, first_step + steps):
            batches = [next(stream) for _ in range(run.config.gradient_acc)]
            train_step(run, batches, step)
            done = step + 1
            before = weights_of(run)
    except DataError as caught:
        error = caught
    unchanged = {name: value.tobytes() for name, value in before.items()}
    same = unchanged == {name: value.tobytes() for name, value in weights_of(run).items()}
    return {
        "done": done, "error": error, "lines": lines, "count": run.bad_records.count, "weights": before, "same": same,
    }  # fmt: skip


def damaged_run(folder: str, keys: dict[str, Any], steps: int = 6) -> dict[str, Any]:
    return train(open_source(folder), 0, steps, **keys)


@pytest.mark.parametrize("kind", ["truncated", "label_too_large", "index_swapped"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_stop_ends_all_ranks_at_the_same_step(kind: str, world_size: int, ranks: RankPool, tmp_path: Path) -> None:
    folder = make_damaged_set(tmp_path, kind, [5, 14])
    results = ranks.run(world_size, damaged_run, str(folder), {})
    first = results[0]
    assert isinstance(first["error"], DataError)
    assert REASONS[kind] in str(first["error"])
    assert first["error"].key in (6, 15)
    for result in results:
        assert str(result["error"]) == str(first["error"])
        assert result["done"] == first["done"] < 3
        assert result["same"], "nothing was updated in the step that stopped"


def test_one_and_two_ranks_skip_alike(ranks: RankPool, tmp_path: Path) -> None:
    folder = make_damaged_set(tmp_path, "no_image", HALF)
    keys = {"bad_records": "skip", "output": str(tmp_path / "one")}
    (alone,) = ranks.run(1, damaged_run, str(folder), keys)
    both = ranks.run(2, damaged_run, str(folder), {**keys, "output": str(tmp_path / "two")})
    assert alone["error"] is None
    assert alone["done"] == 6
    for result in both:
        assert result["error"] is None
        assert result["count"] == alone["count"] == len(HALF)
        for name, value in alone["weights"].items():
            assert np.allclose(result["weights"][name], value, rtol=0, atol=1e-5), name
    assert len(alone["lines"]) == len(both[0]["lines"]) == len(HALF)
    assert not both[1]["lines"], "one rank speaks"
    for output in ("one", "two"):
        records = [json.loads(line) for line in (tmp_path / output / BAD_RECORDS).read_text().splitlines()]
        assert sorted(record["index"] for record in records) == HALF
        assert all(record["key"] == record["index"] + 1 for record in records)
        assert all("not a whole image" in record["reason"] for record in records)


@pytest.mark.parametrize("world_size", [1, 2])
def test_too_many_end_all_ranks(world_size: int, ranks: RankPool, tmp_path: Path) -> None:
    folder = make_damaged_set(tmp_path, "empty", HALF)
    keys = {"bad_records": "skip", "max_bad_records": 9, "output": str(tmp_path / "run")}
    results = ranks.run(world_size, damaged_run, str(folder), keys)
    for result in results:
        assert str(result["error"]) == str(results[0]["error"])
        assert "different images could not be read, and max_bad_records = 9: image " in str(result["error"])
        assert result["count"] > 9
        assert result["same"]
    assert results[0]["error"].args[0].count("the image is empty") == 3, "the first few are named"
    resumed = ranks.run(world_size, damaged_run_resumed, str(folder), keys)
    assert all("max_bad_records = 9" in text for text in resumed), "resuming is no way around the cap"


def damaged_run_resumed(folder: str, keys: dict[str, Any]) -> str:
    try:
        run_on(open_source(folder), **keys, resume=True)
    except DataError as error:
        return str(error)
    return ""


def resumed_count(folder: str, keys: dict[str, Any]) -> tuple[int, int, list[str]]:
    """The count at the start of a resumed run, and after all its steps."""
    before = run_on(open_source(folder), **keys, resume=True).bad_records.count
    result = train(open_source(folder), 2, 4, **keys, resume=True)
    return before, result["count"], result["lines"]


def test_a_resumed_run_counts_on(ranks: RankPool, tmp_path: Path) -> None:
    folder = make_damaged_set(tmp_path, "empty", HALF)
    keys = {"bad_records": "skip", "output": str(tmp_path / "run")}
    first = ranks.run(2, damaged_run, str(folder), keys, 2)[0]["count"]
    assert 0 < first < len(HALF)
    file = tmp_path / "run" / BAD_RECORDS
    file.write_bytes(file.read_bytes() + b'{"index": 3, "fi')  # as a power cut leaves it
    results = ranks.run(2, resumed_count, str(folder), keys)
    assert [result[:2] for result in results] == [(first, len(HALF))] * 2
    assert len(results[0][2]) == len(HALF) - first
    indices = sorted(json.loads(line)["index"] for line in file.read_text().splitlines() if line.endswith("}"))
    assert indices == HALF


def killed_reader(rank: int) -> str:
    """Loses a reader on one rank; the text of the error on this one."""
    from torch.utils.data import dataloader

    # The pool's processes are daemons, which may not have children; those of a launcher may.
    configuration = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    configuration["daemon"] = False
    dataloader._MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.1,)
    run = run_on(SyntheticSource(3, 96, ImageFormat(SIZE, SIZE, 3)), num_workers=1, num_epoch=4)
    others = set(multiprocessing.active_children())
    stream = iter(build_stream(run, 0))
    try:
        for step in range(40):
            train_step(run, [next(stream)], step)
            if step == 2 and run.ranks.rank == rank:
                (reader,) = set(multiprocessing.active_children()) - others
                os.kill(reader.pid or 0, signal.SIGKILL)
    except ReaderError as error:
        return f"step {step}: {error}"
    finally:
        stream.close()  # type: ignore[attr-defined]  # a generator
        configuration["daemon"] = True
    return "no error"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_reader_killed_on_one_rank_ends_both_with_the_cause(rank: int, ranks: RankPool) -> None:
    first, second = ranks.run(2, killed_reader, rank)
    assert first == second
    assert "was ended by signal 9 (SIGKILL)" in first
    assert f"[rank {rank}]" in first


def image(index: int) -> BadImage:
    return BadImage(index, "train.rec", index + 1, 100 * index, "damage")


class _Batch:
    def __init__(self, *bad: BadImage) -> None:
        self.failure, self.bad = None, bad


def many_reports() -> tuple[list[str], int, int]:
    """300 images in ever new batches, each met twice."""
    records, lines = BadRecords(1000), []
    records.say = lines.append
    for start in range(0, 300, 3):
        batches = [_Batch(image(start), image(start + 1)), _Batch(image(start + 1), image(start + 2))]
        assert records.reports(batches) == 3
        records.settle(batches)
        assert records.reports(batches) == 0, "what all ranks know is not told again"
    return lines, records.count, records.reports([_Batch()])


def test_the_log_is_not_flooded(ranks: RankPool) -> None:
    ((lines, count, nothing),) = ranks.run(1, many_reports)
    assert count == 300
    assert nothing == 0
    assert [int(line.split()[2]) for line in lines] == [*range(1, 21), 32, 64, 128, 256]
    assert lines[2] == (
        "bad record 3 of at most 1000, replaced by another image: image 2: train.rec, record 3, byte 200: damage"
    )
    assert "each power of two gets a line" in lines[19]


def unwritable(path: str) -> tuple[list[str], int]:
    records, lines = BadRecords(10, Path(path)), []
    records.say = lines.append
    records.settle([_Batch(image(1))])
    return lines, records.count


def test_a_file_that_cannot_be_written_stops_nothing(ranks: RankPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ((lines, count),) = ranks.run(1, unwritable, str(tmp_path / "file" / BAD_RECORDS))
    assert count == 1
    assert "could not be written" in lines[-1]
