"""One life of a training process, from its start to its sudden death or its end; what remains is compare.py's."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
MARK = "KILL_CAMPAIGN_LIFE"  # in the environment of all processes of a life, readers included
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_POLL = 0.0005
_LIMIT = 300.0  # seconds that a life may last

Aim = Literal["start", "steps", "saving"]


@dataclass(frozen=True)
class Plan:
    """When to kill: moments are uniform over `seconds`, counted from the start or from the first step of a life.

    With the aim "saving" it strikes up to 40 ms after the first sight of a half-written checkpoint from then on.
    """

    aim: Aim
    one_rank: bool
    seconds: float


class CampaignError(AssertionError):
    """Something that must not happen happened; the text holds what the process printed last."""


@dataclass(frozen=True)
class Death:
    """How a life ended.

    Attributes:
        killed: False where training came to its end first.
        during_saving: a half-written or half-deleted checkpoint was left behind.
        one_rank: a single rank was killed, and the launcher ended the others.
        output: all that was printed.
    """

    killed: bool
    during_saving: bool
    one_rank: bool
    output: str


def command(config: Path, ranks: int, arguments: list[str]) -> list[str]:
    """What a user would type."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    return [sys.executable, *launcher, "train.py", str(config), "--device", "cpu", "resume=True", *arguments]


def live(config: Path, ranks: int, output: Path, arguments: list[str], plan: Plan | None, rng: random.Random) -> Death:
    """Starts (or resumes) the run in `output` and kills it as `plan` says; with None it lives on to its end.

    Raises:
        CampaignError: it failed by itself, or did not end.
    """
    mark = uuid.uuid4().hex
    console = output.with_name(f"{output.name}.console")
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
    environment |= {"OMP_NUM_THREADS": "1", MARK: mark}
    with console.open("wb") as stream:
        process = subprocess.Popen(
            command(config, ranks, [f"output={output}", *arguments]),
            cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            killed = plan is not None and _wait_for(plan, process, output, console, rng)
            if plan is not None and killed:
                _kill(process, ranks, mark, plan.one_rank, rng)
            status = process.wait(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            raise CampaignError(f"no end after {_LIMIT:.0f} s:\n{_tail(console)}") from None
        finally:
            _clear(mark)
    if not killed and status != 0:
        raise CampaignError(f"training ended by itself with status {status}:\n{_tail(console)}")
    left = killed and any((output / "checkpoints").glob(".step_*"))
    return Death(killed, left, killed and plan is not None and plan.one_rank, console.read_text(errors="replace"))


def _wait_for(plan: Plan, process: subprocess.Popen[bytes], output: Path, console: Path, rng: random.Random) -> bool:
    """Returns True at the moment to kill, False where the process has ended before it came."""
    deadline = time.monotonic() + _LIMIT
    delay = rng.uniform(0.0, plan.seconds)
    # From the first step on; saving is met a while later, or the first checkpoint would always be the one.
    moment = time.monotonic() + delay if plan.aim == "start" else float("inf")
    within = rng.uniform(0.0, 0.04)  # seconds: as long as saving takes
    while process.poll() is None and time.monotonic() < deadline:
        if moment == float("inf"):
            text = console.read_bytes()
            if b"\nstep " in text or text.startswith(b"step "):
                moment = time.monotonic() + delay
        elif time.monotonic() >= moment:
            if plan.aim != "saving":
                return True
            if any((output / "checkpoints").glob(".step_*")):
                time.sleep(within)
                return process.poll() is None
        time.sleep(_POLL if time.monotonic() >= moment else 0.02)
    return False


def _kill(process: subprocess.Popen[bytes], ranks: int, mark: str, one_rank: bool, rng: random.Random) -> None:
    """SIGKILL for one rank, or for all processes at once, the launcher first."""
    members = _members(mark)
    children = [pid for pid, parent in members.items() if parent == process.pid] if ranks > 1 else [process.pid]
    victims = [rng.choice(sorted(children))] if one_rank and children else [process.pid, *members]
    for pid in dict.fromkeys(victims):
        _end(pid)


def _clear(mark: str) -> None:
    """Ends what is left of a life: orphans of a launcher that was killed."""
    for pid in _members(mark):
        _end(pid)
    deadline = time.monotonic() + 30
    while _members(mark) and time.monotonic() < deadline:
        time.sleep(0.01)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _members(mark: str) -> dict[int, int]:
    """Process -> parent of all living processes that carry the mark of this life; no others are ever touched."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes():
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = int(parent)
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def _tail(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-80:])
