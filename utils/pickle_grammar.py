"""What a kind of pickle may hold, in words that utils/pickle_machine.py follows. Nothing is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DICTS, FLOATS, OBJECTS, PERSISTENT = frozenset("}us"), frozenset("G"), frozenset("\x81"), frozenset("Q")


class PickleError(ValueError):
    """A pickle that is damaged or asks for more than its grammar allows; the text says what, not in which file."""


@dataclass(frozen=True)
class Name:
    """A global that a pickle names. Nothing was imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StandIn:
    """Base of what a grammar builds in place of a real object; it is hashed by identity, whatever is in it."""

    __slots__ = ()

    def restore(self, state: Any) -> None:
        """Takes the object's state (opcode BUILD); raises TypeError where there is none."""
        raise TypeError(f"{type(self).__name__} takes no state")


@dataclass(frozen=True)
class Grammar:
    """What one kind of pickle may hold besides lists, tuples, bytes, text, whole numbers, bools and None.

    Attributes:
        what: the kind of file, for errors: "a verification file".
        holds: what it may hold, for errors.
        calls: (module, name) -> what is called with the pickle's arguments in its place.
        values: names that may stand by themselves, never called, as dtypes do.
        extra: any of DICTS, FLOATS, OBJECTS, PERSISTENT together.
        persistent: what answers a persistent id.
    """

    what: str
    holds: str
    calls: Mapping[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    values: frozenset[tuple[str, str]] = frozenset()
    extra: frozenset[str] = frozenset()
    persistent: Callable[[Any], Any] | None = None
