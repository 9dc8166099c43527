"""The watchdog of a rank: a rank that hangs says where, and ends. No files but its report, no decisions of a run."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType

from utils.distributed import COLLECTIVE_TIMEOUT, Ranks, shared_store
from utils.peer_board import PeerBoard, tell_apart

HUNG = 124  # exit status, the one of timeout(1)
STUCK = 1  # exit status where not even this file's thread could run: faulthandler's own
# What may take longer than a step: caches are cold, kernels are compiled, whole sets are embedded.
SLOW = 4.0
PHASES = {"starting": SLOW, "verifying": SLOW, "finishing": SLOW, "saving": SLOW}
WAITING = "waiting for data"  # the phase in which the culprit may be a reader
_ROOT = str(Path(__file__).resolve().parents[1]) + os.sep
_COLLECTIVES = f"{os.sep}torch{os.sep}distributed{os.sep}"


def collective_timeout(hang_timeout: float) -> timedelta:
    """How long collectives wait for the others: longer than any watchdog, which knows more and tells it.

    Without a watchdog (0) nothing that is merely slow shall end a run.
    """
    if hang_timeout == 0:
        return timedelta(days=7)
    return max(COLLECTIVE_TIMEOUT, timedelta(seconds=hang_timeout * SLOW + 60.0))


class Watchdog:
    """Ends this process with status `HUNG` when it makes no progress, after telling where all its threads stand.

    One rank that hangs makes all of them wait. The first to notice raises an alarm over the store that they share;
    every rank that can still run then writes its stacks to stderr and `stacks_rank<R>.txt`, and which ranks to look at
    first. Below it lies a net of C for a rank whose interpreter is held by a call that does not return: it writes the
    bare stacks to stderr and ends the process with status `STUCK`, except where a person watches in a terminal: there,
    a run that was suspended with Ctrl-Z would be ended when it goes on.

    Time in which the whole process stood still (suspended, or its machine asleep) does not count.
    """

    def __init__(self, seconds: float, ranks: Ranks, folder: Path) -> None:
        """Starts watching.

        Args:
            seconds: without progress that make a hang; 0 never does. Phases in `PHASES` and the first step have more.
            ranks: this process among all.
            folder: for the stacks.
        """
        self._seconds, self._ranks, self._folder = seconds, ranks, folder
        self._beat = ("starting", 0, 0)
        self._first_step: int | None = None
        # Rounds are far apart next to a step and close next to the timeout.
        self._interval = min(5.0, seconds / 10.0)
        self._grace = 1.0 + 3.0 * self._interval  # for the others to report
        self._main = threading.main_thread()
        self._ended = threading.Event()
        self._reporting = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if seconds > 0:
            line = self._line(self._beat, 0.0, is_busy=True)
            self._board = PeerBoard(shared_store(), ranks.rank, ranks.world_size, self._interval, line)
            self._arm(self._limit(*self._beat[:2]) + 2.0 * self._interval + self._grace / 2)
            self._thread.start()

    def beat(self, phase: str, step: int) -> None:
        """Says that there is progress: this rank begins `phase` of `step`. Costs a fraction of a microsecond."""
        if self._first_step is None:
            self._first_step = step
        self._beat = (phase, step, self._beat[2] + 1)

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._seconds > 0:
            # A rank that is already reporting ends in there: what ended the loop is that other ranks have gone.
            self._thread.join(None if self._reporting else self._interval + 1.0)
            self._board.close()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        seen, idle, last, cpu = self._beat, 0.0, time.monotonic(), 0.0
        while not self._ended.wait(self._interval):
            now, beat, before = time.monotonic(), self._beat, cpu
            cpu = self._cpu_seconds()
            is_busy = cpu - before > 0.1 * (now - last)
            # A long gap between rounds is a process that stood still, not one that hung.
            idle = idle + min(now - last, 2.0 * self._interval) if beat is seen else 0.0
            seen, last = beat, now
            limit = self._limit(beat[0], beat[1])
            self._board.write(self._line(beat, idle, is_busy=is_busy))
            if idle >= limit or self._board.raised_by is not None:
                try:
                    self._report(beat, idle, is_busy=is_busy)
                finally:
                    os._exit(HUNG)
            else:
                self._arm(max(limit - idle, 0.0) + 2.0 * self._interval + self._grace / 2)

    def _limit(self, phase: str, step: int) -> float:
        return self._seconds * max(PHASES.get(phase, 1.0), SLOW if step == self._first_step else 1.0)

    def _arm(self, seconds: float) -> None:
        """Moves the net: it catches this process unless this is called again before."""
        faulthandler.dump_traceback_later(seconds, exit=not os.isatty(2), file=2)

    def _report(self, beat: tuple[str, int, int], idle: float, *, is_busy: bool) -> None:
        """Tells where this rank stands, waits for the others to do so, and says whom to look at."""
        self._reporting = True
        self._arm(2.0 * self._grace + 5.0)  # writing may hang as well
        self._board.raise_alarm()
        asked = "" if self._board.raised_by in (None, self._ranks.rank) else f" (asked by rank {self._board.raised_by})"
        line = self._line(beat, idle, is_busy=is_busy)
        place = f"rank {self._ranks.rank} of {self._ranks.world_size}, {socket.gethostname()}, process {os.getpid()}"
        self._tell(f"no progress for {idle:.0f} s{asked}: {place}: {line['place']}\n{all_stacks(self._main)}")
        for child in multiprocessing.active_children() if beat[0] == WAITING else ():
            # Readers answer this with their stacks, on stderr.
            with contextlib.suppress(OSError, TypeError):
                os.kill(child.pid, signal.SIGUSR2)  # type: ignore[arg-type]
        self._board.write({**line, "has_reported": True}, is_urgent=True)
        deadline = time.monotonic() + self._grace
        while time.monotonic() < deadline and not all(
            other is not None and other.get("has_reported") for other in self._board.read()
        ):
            time.sleep(0.05)
        lines = self._board.read()
        if self._ranks.world_size > 1:
            first = min(rank for rank, other in enumerate(lines) if other is not None and other.get("has_reported"))
            text = tell_apart(lines, silence=self._grace)
            self._tell(text, aloud=first == self._ranks.rank)
        time.sleep(0.2)  # the launcher ends all ranks with the first: let the others finish their line

    def _line(self, beat: tuple[str, int, int], idle: float, *, is_busy: bool) -> dict[str, object]:
        where, is_waiting = whereabouts(sys._current_frames().get(self._main.ident or 0), is_busy=is_busy)
        return {
            "beats": beat[2],
            "idle": idle,
            "place": f"step {beat[1]}, {beat[0]}, {where}",
            "is_waiting": is_waiting,
        }

    def _tell(self, text: str, *, aloud: bool = True) -> None:
        """To stderr, which is sure to be there, and then to the file, whose disk may be what hangs."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        data = f"{stamp} watchdog: {text}\n".encode(errors="replace")
        if aloud:
            with contextlib.suppress(OSError):
                os.write(2, data)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"stacks_rank{self._ranks.rank}.txt").open("ab") as file:
                file.write(data)

    def _cpu_seconds(self) -> float:
        """Of the main thread, where the system tells; 0 elsewhere."""
        if self._main.ident is None or not hasattr(time, "pthread_getcpuclockid"):
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self._main.ident))


def whereabouts(frame: FrameType | None, *, is_busy: bool) -> tuple[str, bool]:
    """Where a thread stands, in words, and whether it waits for other ranks.

    Args:
        frame: its innermost frame.
        is_busy: whether it has used its processor lately. A backward pass that does not is waiting for gradients of
            the others; its frames alone do not tell.
    """
    own: list[str] = []
    inner, collective, is_backward = "", "", False
    while frame is not None and len(own) < 2:
        name, path = frame.f_code.co_name, frame.f_code.co_filename
        if path.startswith(_ROOT) and "site-packages" not in path:
            own.append(f"{path.removeprefix(_ROOT)}:{frame.f_lineno} {name}")
        elif _COLLECTIVES in path and not own and name != "wrapper":
            collective = name
        inner = inner or f"{os.path.basename(path)}:{frame.f_lineno} {name}"
        is_backward = is_backward or (name == "_engine_run_backward")
        frame = frame.f_back
    place = " < ".join(own) or inner
    if collective:
        return f"in a collective ({collective}) at {place}", True
    if is_backward:
        return f"in the backward pass ({'at work' if is_busy else 'idle: it waits'}) at {place}", not is_busy
    inner = f"in {inner}, called at" if own and inner.rpartition(" ")[2] != own[0].rpartition(" ")[2] else "at"
    return f"{'at work' if is_busy else 'idle'} {inner} {place}", False


def all_stacks(main: threading.Thread) -> str:
    """Every thread's Python frames, outermost first; opens no file, for a disk may be what hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    parts = []
    for ident in sorted(frames, key=lambda ident: ident != main.ident):
        if names.get(ident) in ("watchdog", "peer board"):
            continue
        lines, frame = [], frames.get(ident)
        while frame is not None:
            code = frame.f_code
            lines.append(f"    {code.co_filename.removeprefix(_ROOT)}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        parts.append("\n".join([f"  thread {names.get(ident, ident)}:", *reversed(lines)]))
    return "\n".join(parts)
