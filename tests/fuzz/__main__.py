"""`python -m tests.fuzz`: a process per target with limits of its own, a table of what came, JSON where asked."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.guard import ROOT
from tests.fuzz.loop import CURRENT

_MAX_DEATHS = 5  # of one target; then it is left


def main() -> int:
    """Runs the targets; returns 1 where one broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="for each target")
    parser.add_argument("--seconds", type=float, default=1e9, help="for each target, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", nargs="+", metavar="NAME", help="only these; all of them by default")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/fuzz"), help="findings, each as a file")
    parser.add_argument("--json", type=Path, help="write the table there too")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--engine", choices=("own", "atheris"), default="own", help="atheris: where it is installed")
    options = parser.parse_args()
    names = options.target or _names()
    with ThreadPoolExecutor(options.jobs) as pool:
        tallies = list(pool.map(lambda name: _run(name, options), names))
    print_table(tallies)
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "targets": tallies}, indent=1) + "\n")
    return int(any(tally["findings"] for tally in tallies))


def _names() -> list[str]:
    command = [sys.executable, "-m", "tests.fuzz.child", "--list"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One target; a child that dies is started again with another seed, and its last input is a finding."""
    keep = Path(options.out) / name
    keep.mkdir(parents=True, exist_ok=True)
    total: dict[str, Any] = {}
    left, seed, start = options.inputs, options.seed, time.monotonic()
    while left > 0 and seed < options.seed + _MAX_DEATHS and time.monotonic() - start < options.seconds:
        scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        result = keep / "result.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"tests.fuzz.{'child' if options.engine == 'own' else 'coverage'}", name]
        command += ["--inputs", str(left), "--seconds", str(options.seconds), "--seed", str(seed)]
        try:
            done = subprocess.run(
                [*command, "--scratch", str(scratch), "--keep", str(keep.resolve())], cwd=ROOT, capture_output=True
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if result.is_file():
            return _add(total, json.loads(result.read_text()))
        died = keep / f"{name}-died-{seed}"
        if (keep / CURRENT).is_file():
            (keep / CURRENT).replace(died)
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
        finding = {"kind": f"exit {done.returncode}", "where": last[0][:160], "bytes": 0, "file": died.name}
        total = _add(total, {"target": name, "inputs": 1, "findings": [finding]})
        left, seed = left // 2, seed + 1
    return total


def _add(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {
        **more,
        "inputs": total.get("inputs", 0) + more["inputs"],
        "findings": total.get("findings", []) + more["findings"],
    }


def print_table(tallies: list[dict[str, Any]]) -> None:
    """One line for each target."""
    titles = ("inputs", 9), ("accepted", 10), ("per s", 8), ("slowest", 10), ("memory", 9), ("findings", 9)
    print(f"{'target':<13}" + "".join(f"{title:>{width}}" for title, width in titles) + "  refused as")
    for tally in tallies:
        rate = tally["inputs"] / max(tally.get("seconds", 0.0), 1e-9) if "seconds" in tally else 0.0
        refused = ", ".join(f"{name} {count}" for name, count in tally.get("refused", {}).items())
        print(
            f"{tally['target']:<13}{tally['inputs']:>9}{tally.get('accepted', 0):>10}{rate:>8.0f}"
            f"{tally.get('slowest_ms', 0.0):>7.0f} ms{tally.get('peak_mb', 0.0):>6.0f} MB"
            f"{len(tally['findings']):>9}  {refused}"
        )
        for finding in tally["findings"]:
            print(f"    {finding['kind']}: {finding['where']} ({finding['bytes']} bytes, {finding['file']})")


if __name__ == "__main__":
    sys.exit(main())
