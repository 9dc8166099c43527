"""Types and ranges of single values, and the words for them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from utils.config_keys import config_keys, default_of, key_types
from utils.config_values import Interval, WrongTypeError, conform, describe_type, did_you_mean, parse_literal


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        (3.0, int, 3),
        (np.int64(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (None, float | None, None),
        (2, int | None, 2),
        (["a", "b"], tuple[str, ...], ("a", "b")),
        ("a, b", tuple[str, ...], ("a", "b")),
        ("", tuple[str, ...], ()),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": [1, [2]]}, dict[str, Any], {"a": (1, (2,))}),
        ("sgd", Literal["sgd", "adamw"], "sgd"),
    ],
)
def test_what_may_stand_for_what(value: Any, hint: Any, expected: Any) -> None:
    got = conform(value, hint)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1", int), ("1", float), (True, int), (True, float), (1, bool), ("yes", bool), (2.5, int), (None, float),
        (float("nan"), float), (float("inf"), float), (3, str), (3, str | None), ([3], tuple[str, ...]),
        (3, tuple[str, ...]), ({"a": "b"}, dict[str, float]), ({1: 1.0}, dict[str, float]), ("SGD", Literal["sgd"]),
        (1 + 0j, float),
    ],
)  # fmt: skip
def test_what_may_not(value: Any, hint: Any) -> None:
    with pytest.raises(WrongTypeError):
        conform(value, hint)


@pytest.mark.parametrize(
    ("text", "inside", "outside", "words"),
    [
        ("(0, 1]", [0.1, 1], [0, 1.1], "in (0, 1]"),
        ("[0, 1)", [0, 0.99], [-0.1, 1], "in [0, 1)"),
        ("[1, inf)", [1, 1e9], [0], "at least 1"),
        ("(0, inf)", [1e-9], [0], "above 0"),
    ],
)
def test_intervals(text: str, inside: list[float], outside: list[float], words: str) -> None:
    assert all(number in Interval(text) for number in inside)
    assert not any(number in Interval(text) for number in outside)
    assert str(Interval(text)) == words


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("0.5", float, 0.5), ("None", float | None, None), ("None", str | None, None), ("None", str, "None"),
        ("1e3", str, "1e3"), ("'quoted'", str, "quoted"), ("TRUE", bool, True), ("false", bool, False),
        ("maybe", bool, "maybe"), ("(1.0, 0.5, 0.0)", None, (1.0, 0.5, 0.0)), ("a-b", None, "a-b"),
    ],
)  # fmt: skip
def test_command_line_values(text: str, hint: Any, expected: Any) -> None:
    assert parse_literal(text, hint) == expected


def test_words_for_types() -> None:
    assert describe_type(int | None) == "a whole number or None"
    assert describe_type(Literal["a", "b"]) == "'a' or 'b'"
    assert describe_type(tuple[str, ...]) == "a list of names"
    assert describe_type(dict[str, float]) == "a dict of numbers"


def test_nearest_name() -> None:
    assert did_you_mean("sample_rat", ["sample_rate", "seed"]) == " Did you mean 'sample_rate'?"
    assert did_you_mean("quux", ["sample_rate"]) == ""


def test_every_default_obeys_its_own_type_and_range() -> None:
    for name, declared in config_keys().items():
        default, allowed = default_of(name), declared.metadata["allowed"]
        assert conform(default, key_types()[name]) == default, name
        assert default is None or allowed is None or default in allowed, name
