"""Console blocks of a Markdown page: read, run in a workspace, and compared with what the page shows. No tests here.

A block fenced as ```console holds lines `$ command` (continued after a backslash), each followed by what it prints on
stdout. A line `...` stands for any lines. Numbers, hashes, verdicts and runs of spaces may differ: what a page shows
was measured somewhere, and its form must stay true.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATTERNS = (
    (re.compile("the same person: reaches|different people: is below"), "VERDICT:"),
    (re.compile(r"\b[0-9a-f]{12,64}\b…?"), "HASH"),
    (re.compile(r"\b(fp32|bf16)\b"), "PRECISION"),  # precision "auto" asks the machine
    (re.compile(r"[-+]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?"), "#"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Step:
    """One command of a page and the lines that the page shows below it."""

    line: int  # of `$ command`, from 1
    last_line: int  # of the command's last continuation; what it prints begins behind it
    command: str
    shown: list[str]


def read_steps(page: Path) -> list[Step]:
    """All commands of a page's console blocks, in order."""
    steps: list[Step] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    inside, index = False, 0
    while index < len(lines):
        line = lines[index]
        if line.startswith("```"):
            inside = line == "```console" and not inside
        elif inside and line.startswith("$ "):
            start, command = index + 1, line[2:]
            while command.endswith("\\"):
                index += 1
                command = command[:-1] + lines[index]
            steps.append(Step(start, index + 1, command, []))
        elif inside:
            assert steps, f"{page.name}:{index + 1}: a console block begins with `$ command`"
            steps[-1].shown.append(line)
        index += 1
    return steps


def make_workspace(folder: Path) -> Path:
    """A folder that looks like a clone, so that commands run as typed, and holds what they write."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("data", "work_dirs"):
            (folder / entry.name).symlink_to(entry)
    (folder / "data").mkdir()
    return folder


def run_step(step: Step, workspace: Path, timeout: float | None = 280) -> subprocess.CompletedProcess[str]:
    """Runs one command with this interpreter as `python`, without a terminal."""
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        ["bash", "-c", step.command], cwd=workspace, env=environment, capture_output=True, text=True, timeout=timeout
    )


def form(line: str) -> str:
    """A line without what differs between two measurements."""
    for pattern, stands_for in _PATTERNS:
        line = pattern.sub(stands_for, line)
    return line.strip()


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether what a command printed has the form of what the page shows."""
    wanted = [form(line) for line in shown if line.strip()]
    got = [form(line) for line in printed if line.strip()]
    return _matches(wanted, got)


def _matches(wanted: list[str], got: list[str]) -> bool:
    if "..." not in wanted:
        return wanted == got
    cut = wanted.index("...")
    if wanted[:cut] != got[:cut]:
        return False
    rest = wanted[cut + 1 :]
    return any(_matches(rest, got[start:]) for start in range(cut, len(got) + 1))
