"""`python -m tests.docs PAGE WORKSPACE`: runs a page's commands there and writes what they print into the page.

Lines that a page leaves out by `...` are not touched: such a step is only checked. Look at the difference afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.console import Step, make_workspace, matches, read_steps, run_step


def main() -> int:
    """Returns 1 where a command failed or a step with `...` no longer has the page's form."""
    page, workspace = Path(sys.argv[1]), Path(sys.argv[2])
    if not (workspace / "train.py").exists():
        make_workspace(workspace)
    status = 0
    printed: dict[int, list[str]] = {}
    for step in read_steps(page):
        print(f"{page}:{step.line}: $ {step.command}", flush=True)
        done = run_step(step, workspace, timeout=None)
        lines = done.stdout.rstrip().splitlines()
        print("\n".join(lines), flush=True)
        if done.returncode:
            print(f"exit status {done.returncode}\n{done.stderr}", flush=True)
            status = 1
        if "..." not in step.shown:
            printed[step.line] = lines
        elif not matches(step.shown, lines):
            print("-- has another form than the page", flush=True)
            status = 1
    page.write_text(_rewritten(page.read_text(encoding="utf-8"), read_steps(page), printed), encoding="utf-8")
    return status


def _rewritten(text: str, steps: list[Step], printed: dict[int, list[str]]) -> str:
    lines = text.splitlines()
    for step in reversed(steps):
        if step.line in printed:
            start = step.last_line
            lines[start : start + len(step.shown)] = printed[step.line] + ([""] if step.shown[-1:] == [""] else [])
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
