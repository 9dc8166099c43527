"""What a mutation is. The lists of them live in engine.py and heads.py, what runs them in __main__.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One deliberate mistake.

    Attributes:
        name: what is broken, in words.
        path: file, relative to the repository's root.
        old: text that occurs exactly once in it.
        new: what it becomes.
        tests: arguments for pytest that select the tests which must notice.
    """

    name: str
    path: str
    old: str
    new: str
    tests: str
