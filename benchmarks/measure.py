"""How a figure is taken and kept: child processes, peak memory, surroundings, JSON, tables. Turns: utils/turns.py."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from utils.memory import keep_freed_memory, prefer_huge_pages

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks"
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
_GIVEN = {name: value for name, value in os.environ.items() if name == _HUGE_PAGES}


def as_in_training() -> None:
    """Arranges this process's memory as train.py does on a CPU; contestants in the same process get it as well."""
    prefer_huge_pages()
    keep_freed_memory()


def run_child(module: str, arguments: Sequence[str], *, threads: int, timeout: float = 600) -> dict[str, Any]:
    """Runs ``python -m module arguments`` and returns the JSON object on the last line that it prints.

    A process of its own is what peak memory and start-up can be measured in. What `as_in_training` arranges here is not
    handed down: a child that wants it arranges it.

    Raises:
        RuntimeError: it failed or printed no JSON; the message ends with its last lines.
    """
    command = [sys.executable, "-m", module, *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != _HUGE_PAGES}
    environment = {**inherited, **_GIVEN, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    lines = done.stdout.strip().splitlines()
    try:
        if done.returncode:
            raise ValueError
        found: dict[str, Any] = json.loads(lines[-1])
    except (ValueError, IndexError) as error:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{tail}") from error
    return found


def peak_bytes() -> int:
    """Largest resident memory of this process so far, since it began to run its own program.

    Linux's VmHWM, where there is one: what getrusage gives a child includes what its parent held when it was started.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found[0] if found else peak if sys.platform == "darwin" else peak * 1024


def surroundings(device: torch.device | None = None) -> dict[str, Any]:
    """Commit, hardware and versions that the figures belong to."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    is_gpu = device is not None and device.type == "cuda"
    return {
        "commit": commit,
        "hardware": torch.cuda.get_device_name(device) if is_gpu else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "huge_pages": os.environ.get(_HUGE_PAGES, "0") != "0",  # see utils/memory.py
        "load_before": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """The CPU's name where the system tells it, else its architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others are right-aligned."""
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def save(name: str, title: str, markdown: str, data: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Writes FOLDER/NAME.json: title and Markdown for docs/benchmarks.md, and the figures behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {"title": title, "markdown": markdown, **data}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path
