"""Ctrl-C while a command is still importing: a word instead of a traceback. Imports next to nothing, being first."""

from __future__ import annotations

import sys
from types import TracebackType


def say_interrupted_while_importing() -> None:
    """Has an interrupt that nobody catches told in a word, where a command of the importing package is starting.

    Under `python -m PACKAGE.NAME` sys.argv[0] is "-m" while the package itself is imported, and only then: programs
    that import the package for its functions keep the hook that they have. Python ends by the signal as before, so that
    a shell sees 130. Once the command runs, `run_command` catches what Ctrl-C raises.
    """
    if sys.argv[:1] != ["-m"]:
        return
    others = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr, flush=True)
        else:
            others(kind, error, traceback)

    sys.excepthook = told
