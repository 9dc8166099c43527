"""Ctrl-C while a command imports: told in a word, in commands only, and everything else as before."""

from __future__ import annotations

import sys

import pytest

from utils.interrupts import say_interrupted_while_importing


def test_only_an_interrupt_of_a_starting_command_is_told_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    before = sys.excepthook
    say_interrupted_while_importing()
    assert sys.excepthook is before
    monkeypatch.setattr(sys, "argv", ["-m", "data/mine"])
    say_interrupted_while_importing()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert (capsys.readouterr().err, told) == ("interrupted\n", [])
    sys.excepthook(ValueError, ValueError("x"), None)
    assert told == [ValueError]


@pytest.mark.parametrize("package", ["tools", "eval"])
def test_the_packages_of_commands_ask_for_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    importlib.reload(importlib.import_module(package))
    assert sys.excepthook is not sys.__excepthook__
