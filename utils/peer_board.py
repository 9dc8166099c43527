"""What the ranks of a run tell each other beside their collectives: where each one stands. No stacks here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from torch._C._distributed_c10d import Store

_ALARM = "alarm"


class PeerBoard:
    """Each rank writes one line on it, now and then, and reads the others' when one of them raises the alarm.

    A thread of its own does both, so that a store that does not answer holds nobody up; without a store (one rank) a
    board holds only what its own rank writes.
    """

    def __init__(self, store: Store | None, rank: int, world_size: int, interval: float, line: dict[str, Any]) -> None:
        self._store, self._rank, self._world_size, self._interval = store, rank, world_size, interval
        self._mine = line
        self._lines: list[dict[str, Any] | None] = [None] * world_size
        self._is_raised, self._is_closed = False, False
        self._wake = threading.Event()
        self._raised_by: int | None = None
        self._thread = threading.Thread(target=self._run, name="peer board", daemon=True)
        if store is not None:
            self._thread.start()

    def write(self, line: dict[str, Any], *, is_urgent: bool = False) -> None:
        """Replaces this rank's line: at the next round, or at once where it `is_urgent`."""
        self._mine = line
        if is_urgent:
            self._wake.set()

    @property
    def raised_by(self) -> int | None:
        """The rank that has raised the alarm, or None."""
        return self._raised_by

    def raise_alarm(self) -> None:
        """Asks all ranks to report; from now on their lines are read."""
        self._is_raised = True
        self._wake.set()

    def read(self) -> list[dict[str, Any] | None]:
        """The last known line of every rank, `time` (of its own clock) added; None for one that never wrote."""
        lines = list(self._lines)
        lines[self._rank] = {**self._mine, "time": time.time()}
        return lines

    def close(self) -> None:
        """Ends the thread, unless a store that does not answer holds it."""
        self._is_closed = True
        self._wake.set()
        if self._store is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        assert self._store is not None
        try:
            while not self._is_closed:
                self._round(self._store)
                # Once there is an alarm, what the others answer is wanted soon.
                self._wake.wait(self._interval if self._raised_by is None else min(self._interval, 0.2))
                self._wake.clear()
        except RuntimeError:
            return  # the store is gone: with its rank, or with the launcher

    def _round(self, store: Store) -> None:
        store.set(f"rank/{self._rank}", json.dumps({**self._mine, "time": time.time()}))
        if self._is_raised and self._raised_by is None:
            store.compare_set(_ALARM, "", str(self._rank))
        if store.check([_ALARM]):
            self._raised_by = int(store.get(_ALARM))
            for rank in range(self._world_size):
                if rank != self._rank and store.check([f"rank/{rank}"]):
                    self._lines[rank] = json.loads(store.get(f"rank/{rank}"))


def tell_apart(lines: Sequence[dict[str, Any] | None], *, silence: float) -> str:
    """Says which ranks to look at first, and where each one stands; ranks at the same place share a line.

    Args:
        lines: by rank, as `PeerBoard.read` gives them, each with `beats` (how often the rank has made progress),
            `place` (in words) and `is_waiting` (for other ranks).
        silence: seconds after which a rank that has written nothing counts as silent.
    """
    now = max((line["time"] for line in lines if line is not None), default=0.0)
    silent = [rank for rank, line in enumerate(lines) if line is None or now - line["time"] > silence]
    heard = {rank: line for rank, line in enumerate(lines) if line is not None and rank not in silent}
    verdict = _suspects(silent, heard)
    groups: dict[str, list[int]] = {}
    for rank, line in enumerate(lines):
        text = "never heard of" if line is None else str(line["place"])
        if line is not None and rank in silent:
            text = f"silent since {time.strftime('%H:%M:%S', time.localtime(line['time']))}, then {text}"
        groups.setdefault(text, []).append(rank)
    return "\n".join([verdict, *(f"  {name_ranks(ranks)}: {text}" for text, ranks in groups.items())])


def _suspects(silent: Sequence[int], heard: dict[int, dict[str, Any]]) -> str:
    if silent:
        why = "stopped, swapped out, in a call that holds its interpreter, dead, or off the network"
        return f"look at {name_ranks(silent)} first: nothing is heard from there ({why})"
    behind = _minority({rank: int(line["beats"]) for rank, line in heard.items()}, lowest=True)
    if behind:
        return f"look at {name_ranks(behind)} first: behind the others"
    working = [rank for rank, line in heard.items() if not line["is_waiting"]]
    if working and len(working) < len(heard):
        return f"look at {name_ranks(working)} first: the others wait for that"
    apart = _minority({rank: str(line["place"]) for rank, line in heard.items()}, lowest=False)
    if apart:
        return f"look at {name_ranks(apart)} first: elsewhere than the others"
    return "all ranks stand at the same place: look at what they share (network, file system, devices)"


def _minority(values: dict[int, Any], *, lowest: bool) -> list[int]:
    """Ranks whose value is the lowest of several, or is not the most frequent one; none where all have the same."""
    kinds = list(values.values())
    if len(set(kinds)) < 2:
        return []
    if lowest:
        return [rank for rank, value in values.items() if value == min(kinds)]
    usual = max(set(kinds), key=lambda kind: (kinds.count(kind), str(kind)))
    return [rank for rank, value in values.items() if value != usual]


def name_ranks(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0-2, 5`."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    words = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    return ("rank " if len(ranks) == 1 else "ranks ") + words
