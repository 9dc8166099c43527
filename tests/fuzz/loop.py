"""The loop of one fuzzing process: many inputs for one target, every criterion checked for each. No parser here."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.damage import damaged
from tests.fuzz.guard import ROOT, Guard, Hang, PeakMemory
from tests.fuzz.target import Target

CURRENT = "current-input"
_MAX_FINDINGS = 20


@dataclass
class Tally:
    """What came of the inputs of one target."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "refused": dict(self.refused.most_common())}


class Fuzzer:
    """Feeds a target and keeps the tally; inputs that break a promise are kept as files.

    Args:
        target: the parser.
        scratch: an empty folder of its own.
        guard: None leaves out limits and hook, as inside of a test.
        keep: where findings go.
    """

    def __init__(self, target: Target, scratch: Path, guard: Guard | None, keep: Path | None) -> None:
        self.target, self.scratch, self.guard, self.keep = target, scratch, guard, keep
        self.tally = Tally(target.name)
        self._known: set[str] = set()
        self.seeds = target.seeds(scratch)
        for seed in self.seeds:  # what is imported and allocated once is not the inputs' doing
            target.run(seed, scratch)
        self._memory = PeakMemory()
        self._base = self._peak = self._memory.read()

    def damage(self, data: bytes, random: Random) -> bytes:
        """Damage that knows the format, damage that does not, or both."""
        target = self.target
        knows = bool(target.mutators) and random.random() < 0.6
        if knows:
            data = random.choice(list(target.mutators))(data, random)
        if not knows or random.random() < 0.2:
            data = damaged(data, random, self.seeds, target.tokens, is_text=target.is_text)
        return data

    def loop(self, inputs: int, seconds: float, seed: int) -> Tally:
        """Runs until that many inputs or seconds are done."""
        random = Random(f"{self.target.name} {seed}")
        start = time.monotonic()
        self._base = self._peak = self._memory.read()  # again: seeds of other targets may have run since
        while self.tally.inputs < inputs and time.monotonic() - start < seconds:
            self.feed(self.damage(random.choice(self.seeds), random))
        self.tally.seconds = time.monotonic() - start
        return self.tally

    def feed(self, data: bytes) -> None:
        """One input, all criteria."""
        tally, guard = self.tally, self.guard
        tally.inputs += 1
        if self.keep is not None and len(data) < 1 << 16:
            with open(self.keep / CURRENT, "wb", buffering=0) as file:  # what is left if the process dies
                file.write(data)
        broken: tuple[str, str] | None = None
        start = time.perf_counter()
        try:
            if guard is not None:
                guard.start(self.target.seconds)
            self.target.run(data, self.scratch)
            tally.accepted += 1
        except self.target.errors as error:
            tally.refused[type(error).__name__] += 1
        except Hang:
            broken = ("hang", f"more than {self.target.seconds} s")
        except Exception as error:
            broken = (type(error).__name__, _place(error))
        finally:
            if guard is not None:
                guard.stop()
        if broken is not None:
            self._found(data, *broken)
        tally.slowest_ms = max(tally.slowest_ms, (time.perf_counter() - start) * 1000)
        self._check_memory(data)
        if guard is not None and guard.violations:
            self._found(data, "guard", guard.violations[0])
            guard.violations.clear()

    def _check_memory(self, data: bytes) -> None:
        peak = self._memory.read()
        if peak <= self._peak:
            return
        allowed = self.target.memory_factor * len(data) + self.target.memory_constant
        if peak - self._base > allowed:
            self._found(data, "memory", f"{(peak - self._base) >> 20} MiB for {len(data)} bytes")
        self._peak = peak
        self.tally.peak_mb = round((peak - self._base) / 1e6, 1)

    def _found(self, data: bytes, kind: str, where: str) -> None:
        signature = f"{kind} {'' if kind in ('memory', 'hang') else where.split(' ')[0]}"
        if signature in self._known or len(self._known) >= _MAX_FINDINGS:
            return
        self._known.add(signature)
        name = f"{self.target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        if self.keep is not None:
            (self.keep / name).write_bytes(data)
        self.tally.findings.append({"kind": kind, "where": where, "bytes": len(data), "file": name})


def _place(error: BaseException) -> str:
    """The last line of ours on the way to an error, and its text."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "/fuzz/" not in f.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {str(error)[:120]}"
