"""What a run tells: console, training.log, metrics.jsonl, TensorBoard, progress bar. No training and no ranks here."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch

from utils.log_files import LineFile, cut_lines
from utils.pace import Mean, Pace, Reading, format_seconds

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["Mean", "Pace", "Reading", "RunLog", "format_seconds", "memory_bytes", "trim_metrics"]

METRICS = "metrics.jsonl"
LOG = "training.log"
PATIENCE = 30.0  # seconds for which the log may fail before the run stops: a disk that somebody else filled may recover
MAX_POINTS = 10_000  # of a curve in TensorBoard, which draws 1,000 of them


class RunLog:
    """The log of one run; on ranks other than the main one every method does nothing.

    A disk that fills does not end the run in the middle of a step: the first failure is told on the console, lines wait
    in memory, every step tries again, and `failure` asks for a stop after `PATIENCE` seconds of it.
    """

    def __init__(
        self, folder: Path, *, is_main: bool, total_steps: int, first_step: int = 0, is_terminal: bool | None = None,
        max_log_size: int | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Opens (or, when resuming, continues) the files in `folder`.

        Args:
            folder: the run's folder; made where it is missing.
            is_main: write at all?
            total_steps, first_step: for the progress bar; TensorBoard entries from `first_step` on are replaced.
            is_terminal: draw a progress bar; None asks stderr, so that logs of batch systems stay plain.
            max_log_size: MiB of training.log, after which it becomes training.log.1; None: no limit.
            clock: seconds, for tests.

        Raises:
            OSError: the files cannot be opened.
        """
        self.is_main = is_main
        self.failure: str | None = None
        if not is_main:
            return
        # Imported here: it takes seconds, and other ranks never need it.
        from tqdm import tqdm

        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._clock, self._total_steps = folder, clock, total_steps
        self._failing_since: float | None = None
        self._is_console_lost = self._is_closed = False
        self._board: SummaryWriter | None = None
        self._text = LineFile(folder / LOG, max_bytes=None if max_log_size is None else max_log_size << 20)
        self._metrics = LineFile(folder / METRICS)
        self._open_board(first_step)
        self._next_point = 0.0
        draw = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True, disable=not draw)

    def info(self, text: str) -> None:
        """One or more lines for people: to the console and, with the time, to training.log."""
        if not self.is_main:
            return
        self._print(text, sys.stdout)
        self._keep(text)

    def metrics(self, kind: str, *, step: int, epoch: int, **fields: Any) -> None:
        """One line of metrics.jsonl, numbers also to TensorBoard as `kind/name`; non-finite numbers become null.

        TensorBoard gets no more than 10,000 points of a curve, spread over the run; metrics.jsonl has all of them.
        """
        if not self.is_main:
            return
        record = {"kind": kind, "time": round(time.time(), 3), "step": step, "epoch": epoch, **_jsonable(fields)}
        self._attempt(lambda: self._metrics.append(json.dumps(record, allow_nan=False)))
        if kind == "train":
            if step < self._next_point:
                return
            self._next_point = step + self._total_steps / MAX_POINTS
        prefix = "/".join(str(fields[name]) for name in ("dataset", "protocol") if name in fields)
        scalars = {
            "/".join(part for part in (kind, prefix, name) if part): value
            for name, value in record.items()
            if name not in ("time", "step") and isinstance(value, (int, float)) and not isinstance(value, bool)
        }

        def add(board: SummaryWriter) -> None:
            for name, value in scalars.items():
                board.add_scalar(name, value, step)

        self._on_board(add)

    def advance(self, steps_done: int) -> None:
        """Moves the progress bar; tries to write what could not be written before."""
        if self.is_main:
            self._bar.update(steps_done - self._bar.n)
            if self._text.is_waiting or self._metrics.is_waiting:
                self._attempt(self._write_waiting)

    def sync(self) -> None:
        """Makes everything written so far survive a power cut; called where a checkpoint refers to it."""
        if not self.is_main:
            return
        is_written = self._attempt(self._sync_files)
        if self._board is None and is_written:
            self._open_board(None)
        self._on_board(lambda board: board.flush())

    def close(self) -> None:
        """Ends the log; safe to call twice."""
        if self.is_main and not self._is_closed:
            self._is_closed = True
            self._attempt(self._write_waiting, is_last=True)
            self._bar.close()
            self._text.close()
            self._metrics.close()
            self._on_board(lambda board: board.close())

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write_waiting(self) -> None:
        for file in (self._text, self._metrics):
            file.write_waiting()

    def _sync_files(self) -> None:
        for file in (self._text, self._metrics):
            file.sync()

    def _print(self, text: str, stream: TextIO) -> None:
        """Through the bar, which would otherwise be torn. A console that is gone (a closed terminal) ends no run."""
        encoding = getattr(stream, "encoding", None) or "utf-8"  # a file name may be no text
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        try:
            self._bar.write(text, file=stream)
            stream.flush()
        except OSError as error:
            line = f"the console cannot be written ({error.strerror}); this file goes on"
            if not self._is_console_lost:
                self._is_console_lost = True
                self._keep(line)

    def _keep(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        for line in text.splitlines():
            self._attempt(lambda line=line: self._text.append(f"{stamp} {line}"))  # type: ignore[misc]

    def _attempt(self, write: Callable[[], object], *, is_last: bool = False) -> bool:
        """Writes; keeps count of how long it has failed, and says so when that begins and ends."""
        try:
            write()
        except OSError as error:
            now = self._clock()
            if self._failing_since is None:
                self._failing_since = now
                self._print(
                    f"{self._folder}: the log cannot be written: {error.strerror}. Training goes on and tries again; "
                    f"it stops with a checkpoint after {PATIENCE:.0f} s of this",
                    sys.stderr,
                )
            elif now - self._failing_since >= PATIENCE and self.failure is None and not is_last:
                self.failure = f"{self._folder}: the log cannot be written: {error.strerror}"
                self._print(f"{self.failure}, for {now - self._failing_since:.0f} s: stopping", sys.stderr)
            return False
        if self._failing_since is not None and not (self._text.is_waiting or self._metrics.is_waiting):
            seconds, lost = self._clock() - self._failing_since, self._text.lines_lost + self._metrics.lines_lost
            self._failing_since = None
            self.info(f"the log can be written again, after {seconds:.0f} s; {lost} of its lines are lost")
        return True

    def _open_board(self, first_step: int | None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        try:
            self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=first_step)
        except OSError:
            if first_step is not None:  # at the start of a run; later the next checkpoint tries again
                raise

    def _on_board(self, write: Callable[[SummaryWriter], object]) -> None:
        """TensorBoard's files only repeat metrics.jsonl: what its writer's thread runs into ends no run."""
        if self._board is None:
            return
        try:
            write(self._board)
        except Exception as error:
            self._board = None
            self._print(f"TensorBoard's events cannot be written: {error}; the next checkpoint tries again", sys.stderr)


def trim_metrics(folder: Path, last_step: int) -> int:
    """Drops the lines after `last_step` from metrics.jsonl before a resumed run writes those steps again.

    A run that crashed has logged steps that no checkpoint holds. They are the end of the file: whatever stands before
    the last line of a step up to `last_step` stays, also steps of a larger number (where another batch size made the
    run count anew). A torn last line is dropped too.

    Returns:
        The number of lines dropped.
    """
    path = folder / METRICS
    return cut_lines(path, lambda line: _step(line) <= last_step) if path.exists() else 0


def memory_bytes() -> int:
    """Peak memory so far: of this rank's GPU where it uses one, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _step(line: bytes) -> float:
    """The step of a line of metrics.jsonl; infinity where the line is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return math.inf
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) else math.inf


def _jsonable(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value
