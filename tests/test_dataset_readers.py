"""Readers that die, memory and disks that give out: the stream ends with the cause, it never waits for ever."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import dataloader

from dataset import Batch, build_loader, open_source
from sources import Source
from sources.synthetic import SyntheticSource
from tests.records import make_record_set
from utils.bad_records import ReaderError
from utils.images import ImageFormat
from utils.shared_slots import SharedSlots

BATCHES = 40


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks after its workers every 5 seconds while it waits; so long a test need not wait."""
    loop = dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(loop, "__defaults__", (0.1,))


def readers() -> list[BaseProcess]:
    """The readers of this process; the ranks that other tests share are its children too."""
    return [child for child in multiprocessing.active_children() if not child.name.startswith("rank-")]


def start(source: Source, **changes: Any) -> Iterator[Batch]:
    options: dict[str, Any] = {
        "seed": 1, "batch_size": 4, "rank": 0, "world_size": 1, "first_batch": 0, "last_batch": BATCHES,
        "num_workers": 2, "carry_failures": True,
    }  # fmt: skip
    return iter(build_loader(source, **(options | changes)))


def failure_of(batches: Iterator[Batch]) -> str:
    """The text of the first failure; from there on the stream goes on with failures, all well formed."""
    rest = list(batches)
    failed = [batch for batch in rest if batch.failure is not None]
    assert failed
    assert failed == rest[-len(failed) :]
    for batch in failed:
        assert isinstance(batch.failure, ReaderError)
        assert batch.images.shape[0] == len(batch.labels) == 4
        assert not batch.labels.any()
    return str(failed[0].failure)


@pytest.mark.parametrize("sign", ["SIGKILL", "SIGSEGV"])
@pytest.mark.parametrize("bad_records", ["stop", "skip"])
def test_a_reader_that_is_killed_is_named_with_its_signal(sign: str, bad_records: str) -> None:
    stream = start(SyntheticSource(4, 64, ImageFormat(8, 8, 3)), bad_records=bad_records)
    next(stream)
    victim = readers()[0].pid
    assert victim is not None
    os.kill(victim, getattr(signal, sign))
    text = failure_of(stream)
    assert f"reader process {victim} was ended by signal {int(getattr(signal, sign))} ({sign}): " in text
    assert ("ran out of memory" if sign == "SIGKILL" else "a library crashed") in text


def test_without_ranks_a_killed_reader_raises() -> None:
    stream = start(SyntheticSource(4, 64, ImageFormat(8, 8, 3)), num_workers=1, carry_failures=False)
    next(stream)
    os.kill(readers()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(ReaderError, match="SIGKILL"):
        list(stream)
    assert not readers()


def test_a_dead_reader_interrupts_nobody_who_is_not_waiting_for_data() -> None:
    """torch's own way is an exception from a signal handler, in the middle of whatever the program does."""
    before = signal.getsignal(signal.SIGCHLD)
    stream = start(SyntheticSource(4, 64, ImageFormat(8, 8, 3)))
    next(stream)
    assert signal.getsignal(signal.SIGCHLD) is before
    child = readers()[0]
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    torch.ones(10).sum()
    assert "SIGKILL" in failure_of(stream)


def test_a_record_file_cut_short_while_it_is_read(tmp_path: Path) -> None:
    """The map ends in nothing then, which the system answers with SIGBUS."""
    source = open_source(str(make_record_set(tmp_path, [64, 64], 32, 32)))
    stream = start(source, num_workers=1)
    next(stream)
    os.truncate(tmp_path / "train.rec", 0)
    text = failure_of(stream)
    assert "was ended by signal 7 (SIGBUS): a file that was being read became shorter" in text
    assert "df /dev/shm" in text


class FailingDisk(SyntheticSource):
    """A source whose disk gives out at one image."""

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if index == 13:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/mnt/faces/train.rec")
        return super().read(index)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("bad_records", ["stop", "skip"])
def test_a_disk_that_cannot_be_read_is_no_bad_record(num_workers: int, bad_records: str) -> None:
    source = FailingDisk(4, 64, ImageFormat(8, 8, 3))
    batches = list(start(source, num_workers=num_workers, bad_records=bad_records))
    failures = [batch.failure for batch in batches if batch.failure is not None]
    assert isinstance(failures[0], ReaderError)
    assert "reading failed: [Errno 5] Input/output error: '/mnt/faces/train.rec'. Check the disk" in str(failures[0])
    assert "of epoch 0" in str(failures[0])
    assert not any(batch.bad for batch in batches)


def full_after(tensors: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Stands for torch on a system whose shared memory is full after so many tensors."""
    left = tensors

    def share(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)"
            )
        return tensor

    return share


def test_no_shared_memory_for_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "share_memory_", full_after(2))
    text = failure_of(start(SyntheticSource(4, 64, ImageFormat(8, 8, 3))))
    assert "no shared memory for a batch: unable to allocate" in text
    assert "--shm-size" in text


def test_no_shared_memory_in_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to torch's queue, this error is printed by a thread of the reader and the batch never arrives."""
    monkeypatch.setattr(SharedSlots, "take", lambda self: None)  # as with pinned memory: each batch in its own
    monkeypatch.setattr(torch.Tensor, "share_memory_", full_after(4))  # one worker's slots
    assert "no shared memory for a batch" in failure_of(
        start(SyntheticSource(4, 64, ImageFormat(8, 8, 3)), num_workers=1)
    )


class _Bug(SyntheticSource):
    def read(self, index: int) -> tuple[np.ndarray, int]:
        raise ZeroDivisionError("a bug in the reader")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bug_is_carried_with_its_traceback(num_workers: int) -> None:
    text = failure_of(start(_Bug(4, 64, ImageFormat(8, 8, 3)), num_workers=num_workers))
    assert "reading failed by a fault of the program" in text
    assert "in read\n    raise ZeroDivisionError" in text


def test_readers_end_with_their_stream() -> None:
    for carry in (True, False):
        stream = start(_Bug(4, 64, ImageFormat(8, 8, 3)), carry_failures=carry)
        if carry:
            next(stream)
        else:
            with pytest.raises(ReaderError):
                next(stream)
        assert not readers()
        del stream
    stream = start(SyntheticSource(4, 64, ImageFormat(8, 8, 3)))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not readers()
