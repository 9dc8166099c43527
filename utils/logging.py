"""What a run tells: console, training.log, metrics.jsonl, TensorBoard, progress bar. No training and no ranks here."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

METRICS = "metrics.jsonl"
LOG = "training.log"


class RunLog:
    """The log of one run; on ranks other than the main one every method does nothing."""

    def __init__(
        self, folder: Path, *, is_main: bool, total_steps: int, first_step: int = 0, is_terminal: bool | None = None
    ) -> None:
        """Opens (or, when resuming, continues) the files in `folder`.

        Args:
            folder: the run's folder; made where it is missing.
            is_main: write at all?
            total_steps, first_step: for the progress bar; TensorBoard entries from `first_step` on are replaced.
            is_terminal: draw a progress bar; None asks stderr, so that logs of batch systems stay plain.
        """
        self.is_main = is_main
        if not is_main:
            return
        # Imported here: it takes seconds, and other ranks and `--check` never need it.
        from torch.utils.tensorboard.writer import SummaryWriter
        from tqdm import tqdm

        folder.mkdir(parents=True, exist_ok=True)
        self._text = (folder / LOG).open("a", encoding="utf-8", buffering=1)
        self._metrics = (folder / METRICS).open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step or None)
        draw = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True, disable=not draw)

    def info(self, text: str) -> None:
        """One or more lines for people: to the console and, with the time, to training.log."""
        if not self.is_main:
            return
        # Through the bar, which would otherwise be torn.
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        for line in text.splitlines():
            self._text.write(f"{stamp} {line}\n")

    def metrics(self, kind: str, *, step: int, epoch: int, **fields: Any) -> None:
        """One line of metrics.jsonl, numbers also to TensorBoard as `kind/name`; non-finite numbers become null."""
        if not self.is_main:
            return
        record = {"kind": kind, "time": round(time.time(), 3), "step": step, "epoch": epoch, **_jsonable(fields)}
        self._metrics.write(json.dumps(record, allow_nan=False) + "\n")
        prefix = "/".join(str(fields[name]) for name in ("dataset", "protocol") if name in fields)
        for name, value in record.items():
            if name not in ("time", "step") and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar("/".join(part for part in (kind, prefix, name) if part), value, step)

    def advance(self, steps_done: int) -> None:
        """Moves the progress bar."""
        if self.is_main:
            self._bar.update(steps_done - self._bar.n)

    def sync(self) -> None:
        """Makes everything written so far survive a power cut; called where a checkpoint refers to it."""
        if self.is_main:
            for file in (self._text, self._metrics):
                file.flush()
                os.fsync(file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Ends the log; safe to call twice."""
        if self.is_main and not self._text.closed:
            self._bar.close()
            self._text.close()
            self._metrics.close()
            self._board.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def trim_metrics(folder: Path, last_step: int) -> int:
    """Drops the lines after `last_step` from metrics.jsonl before a resumed run writes those steps again.

    A run that crashed has logged steps that no checkpoint holds. A torn last line is dropped too.

    Returns:
        The number of lines dropped.
    """
    path = folder / METRICS
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (record := _parse(line)) is not None and int(record.get("step", 0)) <= last_step]
    if len(kept) < len(lines):
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, path)
    return len(lines) - len(kept)


@dataclass(frozen=True)
class Reading:
    """Speed since the last reading."""

    images_per_second: float
    data_wait: float  # share of the time spent waiting for the loader, 0 .. 1
    seconds_left: float


class Pace:
    """Measures images per second, the share of time spent waiting for data, and the time left.

    Time inside `paused()` (verification, checkpoints) counts for none of them.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._start = clock()
        self._images = self._steps = 0
        self._waited = self._paused = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the request for the next batch."""
        start = self._clock()
        yield
        self._waited += self._clock() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around work that is not training."""
        start = self._clock()
        yield
        self._paused += self._clock() - start

    def add(self, images: int) -> None:
        """One optimizer step on `images` images of all ranks."""
        self._images += images
        self._steps += 1

    def read(self, steps_left: int) -> Reading:
        """The speed since the last reading; starts a new one."""
        now = self._clock()
        seconds = max(now - self._start - self._paused, 1e-9)
        per_step = seconds / max(self._steps, 1)
        reading = Reading(self._images / seconds, min(1.0, self._waited / seconds), steps_left * per_step)
        self._start, self._images, self._steps, self._waited, self._paused = now, 0, 0, 0.0, 0.0
        return reading


class Mean:
    """Mean of what was added since it was last read."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Adds one value."""
        self._sum, self._count = self._sum + value, self._count + 1

    def read(self) -> float:
        """The mean; starts anew."""
        mean = self._sum / max(self._count, 1)
        self._sum, self._count = 0.0, 0
        return mean


def memory_bytes() -> int:
    """Peak memory so far: of this rank's GPU where it uses one, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def format_seconds(seconds: float) -> str:
    """`1:02:03`, with days in front where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hour}:{minute:02d}:{second:02d}"


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _jsonable(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value
