"""Which class of another run is which class here: by name, by number, or by a list. Texts only, no prototypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.run import Run
from utils.checkpoint import CheckpointError
from utils.files import write_text_whole

CLASS_NAMES = "classes.txt"
NEW = "-"  # in a class map: no class there
_SHOWN = 3


@dataclass(frozen=True)
class ClassMatch:
    """Where the classes of this run are in another.

    Attributes:
        there: int64 (classes here,), the class there, -1 for a new one.
        num_there: classes of the other run.
        how: for the log.
    """

    there: np.ndarray
    num_there: int
    how: str

    def describe(self) -> str:
        """How many were taken, how many are new, how many of the others nobody wanted."""
        uses = np.bincount(self.there[self.there >= 0], minlength=self.num_there)
        new = int((self.there < 0).sum())
        taken = len(self.there) - new
        more = f", {(uses > 1).sum()} of them by several classes here" if (uses > 1).any() else ""
        return (
            f"prototypes of {taken} of {len(self.there)} classes taken, matched by {self.how}{more}; {new} new ones as "
            f"initialised; {(uses == 0).sum()} of {self.num_there} classes there not used"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        uses = np.bincount(self.there[self.there >= 0], minlength=self.num_there)
        new = int((self.there < 0).sum())
        return {
            "matched_by": self.how,
            "loaded": len(self.there) - new,
            "initialised": new,
            "skipped": int((uses == 0).sum()),
            "classes": len(self.there),
            "classes_there": self.num_there,
        }


def write_class_names(run: Run) -> None:
    """Writes the classes' names by label into the run's folder, on the main rank, where the data has names.

    Another run can then start from these prototypes by `init_head_from`, whatever its classes' numbers are.
    """
    names = class_names(run)
    if names is None or not run.ranks.is_main:
        return
    folder = Path(run.config.output or "")
    folder.mkdir(parents=True, exist_ok=True)
    write_text_whole("".join(f"{name}\n" for name in names), folder / CLASS_NAMES)


def class_names(run: Run) -> Sequence[str] | None:
    """Names by label, where the data has any that a line of text can hold."""
    names: Sequence[str] | None = getattr(run.source, "names", None)
    if names is None or any("\n" in name or "\r" in name or not _is_text(name) for name in names):
        return None
    return names


def match_classes(
    here: Sequence[str] | None, num_here: int, run_folder: Path, num_there: int, class_map: str | None
) -> ClassMatch:
    """Matches the classes of this run with those of the run in `run_folder`.

    Args:
        here: names by label, None where the data has none.
        num_here: classes here.
        run_folder: of the other run; its classes.txt is read where it is there.
        num_there: classes of the other run.
        class_map: path of a list that decides instead: line i names the class there that is class i here.

    Raises:
        CheckpointError: nothing says which class is which, or a list that cannot be right; says what to do.
    """
    path = run_folder / CLASS_NAMES
    names = _read_lines(path) if path.is_file() else None
    if names is not None and len(names) != num_there:
        raise CheckpointError(
            f"{path}: it names {len(names)} classes, the run's checkpoint has {num_there}: it belongs to another run. "
            "Put the right one there, or remove it and give init_class_map with numbers"
        )
    if class_map is not None:
        return ClassMatch(_read_map(Path(class_map), num_here, names, num_there), num_there, f"the list {class_map}")
    if here is not None and names is not None:
        return ClassMatch(_match_names(here, names, path), num_there, "name")
    if num_here == num_there:
        return ClassMatch(np.arange(num_here, dtype=np.int64), num_there, "number")
    raise CheckpointError(
        f"init_head_from: {num_there} classes in {run_folder}, {num_here} here, and the names are not known on both "
        "sides: nothing says which is which. Give init_class_map=FILE, a text file with a line for each class here: "
        f"the class there, by number from 0 (by name, where {CLASS_NAMES} is in that folder), or {NEW} for a new one"
    )


def _match_names(here: Sequence[str], names: Sequence[str], path: Path) -> np.ndarray:
    number = {name: label for label, name in enumerate(names)}
    there = np.array([number.get(name, -1) for name in here], dtype=np.int64)
    if not (there >= 0).any():
        raise CheckpointError(
            f"init_head_from: no class here has a name of {path}: the first there are {_some(names)}, here "
            f"{_some(here)}. Give init_class_map=FILE, or leave init_head_from out"
        )
    return there


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN])


def _read_map(path: Path, num_here: int, names: Sequence[str] | None, num_there: int) -> np.ndarray:
    """The class there of each class here: names where the other run has them, else numbers."""
    lines = _read_lines(path)
    if len(lines) != num_here:
        raise CheckpointError(
            f"{path}: it has {len(lines)} lines, this run has {num_here} classes: line i (from 1) is for class i - 1"
        )
    known = {name: label for label, name in enumerate(names)} if names is not None else None
    found = np.empty(num_here, dtype=np.int64)
    problems = []
    for label, line in enumerate(lines):
        number = -1 if line == NEW else _number(line, known, num_there)
        if number is None:
            problems.append(f"line {label + 1}: {line[:60]!r}")
            continue
        found[label] = number
    if problems:
        number_there = f"a number in 0 .. {num_there - 1} (the run there has no {CLASS_NAMES})"
        allowed = number_there if names is None else f"one of the {num_there} names there (as {_some(names)})"
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{path}: {'; '.join(problems[:_SHOWN])}{more}: expected {allowed}, or {NEW}")
    return found


def _number(line: str, known: dict[str, int] | None, num_there: int) -> int | None:
    """The class that a line names; None where there is no such class."""
    if known is not None:
        return known.get(line)
    is_number = line.isascii() and line.isdigit() and len(line) < 10
    return int(line) if is_number and int(line) < num_there else None


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: no UTF-8 text ({error.reason} at byte {error.start})") from error
    lines = lines[:-1] if lines[-1] == "" else lines
    if path.name == CLASS_NAMES and len(set(lines)) != len(lines):
        name, count = Counter(lines).most_common(1)[0]
        raise CheckpointError(f"{path}: {name!r} is there {count} times: a name must belong to one class")
    return lines


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is no text, as the system allows
        return False
    return True
