"""Runs the mutants in a copy of the tree and says which ones no test noticed.

    python -m tests.mutation [--only TEXT] [--list]

Takes some minutes, so it is not part of `make test`; tests/mutation/test_mutants.py keeps the list applicable.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutation import engine, heads
from tests.mutation.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("losses", "utils", "tests", "backbones", "sources", "training", "eval", "configs")
_FILES = ("dataset.py", "train.py", "pyproject.toml")
_LIMIT = 300  # seconds; a mutant that makes ranks wait for each other for ever is noticed too


def copy_tree(target: Path) -> None:
    """Copies what the tests need."""
    for part in _PARTS:
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(ROOT / name, target / name)


def run_tests(folder: Path, arguments: str) -> tuple[int | None, str]:
    """Exit status of pytest (None: it took too long) and its first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments.split(maxsplit=2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the ranks too
            return None, f"no end after {_LIMIT} s"
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return process.returncode, failed[0] if failed else output[-200:]


def run_mutant(folder: Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether a test noticed, and which."""
    path = folder / mutant.path
    original = path.read_text()
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        status, first = run_tests(folder, mutant.tests)
    finally:
        path.write_text(original)
    return status in (1, None), first


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose name or file contains this")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    arguments = parser.parse_args()
    mutants = [m for m in (*engine.MUTANTS, *heads.MUTANTS) if arguments.only in f"{m.name} {m.path}"]
    survivors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not arguments.list:
            copy_tree(folder)
        for mutant in mutants:
            if arguments.list:
                print(f"{mutant.path}: {mutant.name}")
                continue
            start = time.monotonic()
            is_noticed, first = run_mutant(folder, mutant)
            verdict = "noticed " if is_noticed else "SURVIVED"
            print(
                f"{verdict} {time.monotonic() - start:4.0f} s  {mutant.path}: {mutant.name}  [{first[:110]}]",
                flush=True,
            )
            survivors += [] if is_noticed else [mutant.name]
    if not arguments.list:
        print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
