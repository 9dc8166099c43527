"""Which runs a sweep consists of, and where each lives. Starts nothing, reads no results."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import DataError
from utils.files import write_text_whole

PLAN = "sweep.json"
_OPENING, _CLOSING = "([{", ")]}"
_LONGEST = 80  # of a folder's name


class SweepError(DataError):
    """A sweep that cannot be what was meant; the text says what to change."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        values: key -> text of its value, as on the command line.
        seed: from 1.
        folder: of the run.
    """

    values: tuple[tuple[str, str], ...]
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.folder.name}.out")

    @property
    def overrides(self) -> list[str]:
        """Arguments for train.py."""
        return [f"{key}={value}" for key, value in self.values] + [f"seed={self.seed}"]


def parse_vary(text: str) -> tuple[str, list[str]]:
    """Takes `KEY=V1,V2` apart; commas within brackets or quotes belong to a value.

    Raises:
        SweepError: no key, no value, one value twice, or a bracket or quote that is not closed.
    """
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not equals or not key or not rest.strip():
        raise SweepError(f"--vary {text!r}: must be KEY=V1,V2,..., as in --vary head_options.margin=0.2,0.35")
    values, depth, quote, current = [], 0, "", ""
    for letter in rest:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        if letter == "," and not quote and depth == 0:
            values.append(current.strip())
            current = ""
        else:
            current += letter
    values.append(current.strip())
    if quote or depth:
        raise SweepError(f"--vary {text!r}: a bracket or quote is not closed")
    if "" in values or len(set(values)) < len(values):
        raise SweepError(f"--vary {text!r}: an empty value, or one twice")
    if key in ("output", "resume", "seed"):
        raise SweepError(f"--vary {key}: the sweep itself sets {key}; seeds are given with --seeds N")
    return key, values


def trials_of(folder: Path, varied: Mapping[str, Sequence[str]], seeds: int) -> list[Trial]:
    """All runs; one seed of every combination before the next seed, so that an unfinished sweep can be compared."""
    combinations = list(itertools.product(*(varied[key] for key in varied)))
    return [
        Trial(values, seed, folder / _name(values, seed))
        for seed in range(1, seeds + 1)
        for combination in combinations
        for values in [tuple(zip(varied, combination, strict=True))]
    ]


def check_plan(folder: Path, config: str, overrides: Sequence[str], *, write: bool) -> None:
    """Keeps runs under other settings out of a sweep's folder; notes the settings where `write`.

    Raises:
        SweepError: the folder holds a sweep of another config or with other overrides.
    """
    path = folder / PLAN
    plan = {"config": Path(config).stem, "overrides": sorted(overrides)}
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SweepError(f"{path}: no JSON ({error}); remove it, or name another folder with --out") from None
        if before != plan:
            raise SweepError(
                f"{folder} holds a sweep of {before}, this one is {plan}: give the same config and overrides to go on "
                "with it, or another folder with --out"
            )
    elif write:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_whole(json.dumps(plan, indent=1) + "\n", path)


def _name(values: Sequence[tuple[str, str]], seed: int) -> str:
    """A folder's name: the last word of each key and the value, then the seed; long ones end in a hash."""
    parts = [f"{key.rpartition('.')[2]}={value}" for key, value in values] + [f"seed={seed}"]
    text = re.sub(r"[^\w.=+-]+", "_", ",".join(parts))
    exact = ",".join(f"{key}={value}" for key, value in values) + f",{seed}"
    digest = hashlib.sha256(exact.encode()).hexdigest()[:8]
    plain = re.fullmatch(r"[\w.=+,-]*", ",".join(parts)) is not None
    return text if plain and len(text) <= _LONGEST else f"{text[: _LONGEST - 9]}_{digest}"
