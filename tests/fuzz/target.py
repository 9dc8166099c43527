"""What a fuzz target is: valid files to begin with, how to damage them, and what may come of it. No parser here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

Mutator = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: for the command line and the table.
        seeds: makes the valid files, as bytes, in a scratch folder of its own.
        run: parses bytes; whatever it needs beside them lies in that folder. Raises one of `errors`, or accepts.
        errors: the errors that the parser promises.
        tokens: bytes that mean something to it.
        mutators: ways of damage that know the format; ordinary damage to bytes is added to them.
        is_text: lines and words are damaged instead of numbers of fixed length.
        memory_factor: an input of n bytes may cost `memory_factor * n + memory_constant` bytes.
        memory_constant: see there.
        seconds: what one input may take.
    """

    name: str
    seeds: Callable[[Path], list[bytes]]
    run: Callable[[bytes, Path], object]
    errors: tuple[type[Exception], ...]
    tokens: Sequence[bytes] = ()
    mutators: Sequence[Mutator] = ()
    is_text: bool = False
    memory_factor: int = 128
    memory_constant: int = 32 << 20
    seconds: float = 2.0


def put(folder: Path, name: str, data: bytes) -> Path:
    """Writes `data` as a file in the scratch folder; parsers take paths."""
    path = folder / name
    with open(path, "wb", buffering=0) as file:
        file.write(data)
    return path
