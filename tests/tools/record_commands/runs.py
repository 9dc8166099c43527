"""How the tests of the record commands run them, also in a process that is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import records


def run(*arguments: object) -> int:
    """The exit status of `python -m tools.records ...`."""
    return records.main([str(argument) for argument in arguments])


def facts(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> dict:
    """What a command prints with --json; there is nothing else on stdout."""
    capsys.readouterr()
    assert run(*arguments, "--json") == status
    return json.loads(capsys.readouterr().out)


def killed(work: Callable[[], object]) -> None:
    """Runs `work` in a child process that must die of SIGKILL in it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself: {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def kill_at(function: Callable, number: int) -> Callable:
    """The function, but its `number`-th call kills the process at once, as kill -9 does."""
    left = number

    def counted(*arguments: object, **named: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return counted


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
