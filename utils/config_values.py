"""What one config value may be: types, ranges, words for them, how a key is declared; names no key, reads no file."""

from __future__ import annotations

import ast
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union

_ANYTHING = "any value"
_LARGEST = 2**63 - 1  # what a seed, a size or a count can be


class ConfigError(ValueError):
    """All that is wrong with a configuration, one line per problem.

    Attributes:
        problems: the lines; each says where, what, what was got, what is allowed, and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


@dataclass(frozen=True)
class Interval:
    """A range of numbers in mathematical notation: ``Interval("(0, 1]")`` excludes 0 and includes 1."""

    text: str

    def __contains__(self, number: float) -> bool:
        low, high = (float(end) for end in self.text[1:-1].split(","))
        above = number >= low if self.text[0] == "[" else number > low
        below = number <= high if self.text[-1] == "]" else number < high
        return above and below

    def __str__(self) -> str:
        low, high = self.text[1:-1].split(",")
        if float(high) == math.inf:
            return f"at least {low}" if self.text[0] == "[" else f"above {low}"
        return f"in {self.text}"


class WrongTypeError(TypeError):
    """A value that cannot stand for its key; `conform` raises it and every caller turns it into a problem line."""


def is_optional(hint: Any) -> bool:
    """Whether `hint` is a union that admits None."""
    return typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint)


def conform(value: Any, hint: Any) -> Any:
    """Returns `value` as the type `hint` says, without guessing: 1 may stand for 1.0, "1" for neither.

    Args:
        value: what the file or the command line gave.
        hint: str, int, float, bool, Any, Literal[...], tuple[X, ...], Sequence[X], dict[str, X] or a union of these
            with None. Of any other class only its own instances conform.

    Raises:
        WrongTypeError: the value cannot stand for that type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _conform_union(value, arguments)
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
    elif origin in (tuple, Sequence) or hint is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, (list, tuple)):
            return tuple(conform(item, arguments[0] if arguments else Any) for item in value)
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: conform(item, arguments[1] if arguments else Any) for key, item in value.items()}
    elif hint in (bool, str):
        if isinstance(value, hint):
            return value
    elif hint in (int, float):
        return _conform_number(value, hint)
    elif hint is Any or not isinstance(hint, type):
        return _freeze(value)
    elif isinstance(value, hint):
        return value
    raise WrongTypeError


def describe_type(hint: Any) -> str:
    """Names the type `hint` in the words that errors and docs/config.md use."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        # a class that no file can write, as Tensor beside float, is nothing to offer
        words = [describe_type(argument) for argument in arguments]
        return " or ".join(word for word in words if word != _ANYTHING) or _ANYTHING
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (tuple, Sequence) or hint is tuple:
        return {str: "a list of names", float: "a list of numbers"}.get(arguments[0] if arguments else Any, "a list")
    if origin is dict or hint is dict:
        return "a dict of numbers" if arguments[1:] == (float,) else "a dict"
    simple = {bool: "True or False", str: "text", int: "a whole number", float: "a number", type(None): "None"}
    return simple.get(hint, _ANYTHING)


def parse_literal(text: str, hint: Any) -> Any:
    """Reads a value from the command line: a Python literal where it is one, else the text itself.

    Args:
        text: right side of `key=value`.
        hint: the key's type, or None where it is not known. For text, `1e3` stays "1e3" and None stays None.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    accepted = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if str in accepted and not isinstance(value, str):
        return None if value is None and is_optional(hint) else text
    if bool in accepted and isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest of the known names, or nothing where none is near."""
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _conform_union(value: Any, members: tuple[Any, ...]) -> Any:
    if value is None and type(None) in members:
        return None
    for member in members:
        if member is not type(None):
            try:
                return conform(value, member)
            except WrongTypeError:
                continue
    raise WrongTypeError


def _conform_number(value: Any, hint: type) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise WrongTypeError
    if isinstance(value, numbers.Integral):
        if abs(int(value)) > _LARGEST:
            raise WrongTypeError
        return float(value) if hint is float else int(value)
    number = float(value)
    if not math.isfinite(number) or (hint is int and not number.is_integer()):
        raise WrongTypeError
    return number if hint is float else int(number)


def _freeze(value: Any) -> Any:
    """Lists become tuples and mappings plain dicts, so that a value equals itself after a trip through JSON."""
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, Mapping):
        return {str(key): _freeze(item) for key, item in value.items()}
    if isinstance(value, numbers.Number) and not isinstance(value, (bool, int, float)):
        return value.item() if hasattr(value, "item") else value
    return value


@dataclass(frozen=True)
class Text:
    """What a config file that is data says: key -> value, and key -> the line that says it."""

    values: dict[str, Any]
    lines: dict[str, int]


def misread(where: str, line: int | None, what: str) -> ConfigError:
    """The error of one place of a text file."""
    return ConfigError([f"{where}{'' if line is None else f':{line}'}: {what}."])


def shortened(value: Any) -> str:
    """A value in an error, however long it is."""
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."


def about(help: str, allowed: str = "", *, unit: str = "", group: str = "") -> dict[str, Any]:
    """Describes one key.

    Args:
        help: one line for docs/config.md and for errors.
        allowed: range of a number, as in ``"(0, 1]"``.
        unit: what a number counts.
        group: heading of docs/config.md that begins with this key.
    """
    return {"help": help, "allowed": Interval(allowed) if allowed else None, "unit": unit, "group": group}


def key(default: Any, help: str, allowed: str = "", *, unit: str = "", group: str = "") -> Any:
    """Declares a key with its default; the rest as in `about`."""
    return field(default=default, metadata=about(help, allowed, unit=unit, group=group))
