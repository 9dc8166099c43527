"""Words, JSON, exit status and errors of a command, as a user and a program see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.command_line import DONE, FOUND, INTERRUPTED, REFUSED, Outcome, command_parser, run_command, say
from utils.errors import DataError


def options(*arguments: str):
    parser = command_parser("python -m tools.example", "Counts things.", ["python -m tools.example things"])
    return parser.parse_args(list(arguments))


def test_help_ends_with_the_examples():
    parser = command_parser("python -m tools.example", "Counts things.", ["python -m a x", "python -m a y --json"])
    assert parser.format_help().endswith("examples:\n  python -m a x\n  python -m a y --json\n")


def test_words_go_to_stdout_without_json(capsys):
    given = options()
    assert run_command(given, lambda: Outcome("3 things", {"things": 3}, FOUND), ()) == FOUND
    assert capsys.readouterr() == ("3 things\n", "")


def test_json_has_stdout_for_itself(capsys):
    given = options("--json")

    def work() -> Outcome:
        say(given, "counting")
        return Outcome("3 things", {"things": 3})

    assert run_command(given, work, ()) == DONE
    out, err = capsys.readouterr()
    assert json.loads(out) == {"things": 3}
    assert err == "counting\n3 things\n"


def test_json_takes_what_measurements_are_made_of(capsys):
    facts = {
        "path": Path("a/b"),
        "count": np.int64(3),
        "rates": np.array([0.5, np.nan]),
        "far": {0.001: np.float32(0.25)},
        "infinite": float("inf"),
        "flag": np.bool_(True),
    }
    run_command(options("--json"), lambda: Outcome("", facts), ())
    assert json.loads(capsys.readouterr().out) == {
        "path": "a/b",
        "count": 3,
        "rates": [0.5, None],
        "far": {"0.001": 0.25},
        "infinite": None,
        "flag": True,
    }


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_an_expected_error_is_words_and_status_2(capsys, arguments):
    def work() -> Outcome:
        raise DataError("a.rec: damaged: pack it again")

    assert run_command(options(*arguments), work, (DataError,)) == REFUSED
    out, err = capsys.readouterr()
    assert err == "error: a.rec: damaged: pack it again\n"
    assert (json.loads(out) == {"error": "a.rec: damaged: pack it again"}) if arguments else out == ""


def test_an_unexpected_error_keeps_its_traceback():
    def work() -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(options(), work, (DataError,))


def test_interrupts_have_the_status_of_shells(capsys):
    def work() -> Outcome:
        raise KeyboardInterrupt

    assert run_command(options(), work, ()) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_a_rank_without_words_is_silent(capsys):
    assert run_command(options("--json"), lambda: None, ()) == DONE
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_seen_enough_causes_no_traceback():
    program = (
        "import sys, time\n"
        "from utils.command_line import Outcome, command_parser, run_command\n"
        "options = command_parser('p', 'd', ['p']).parse_args([])\n"
        "time.sleep(0.5)\n"
        "sys.exit(run_command(options, lambda: Outcome('x' * 1000000), ()))\n"
    )
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "$PROGRAM" | head -c 1 > /dev/null'],
        env={"PROGRAM": program, "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_of_any_bytes_can_be_told(encoding: str):
    work = "import sys; from tests.utils.test_command_line import options; from utils.command_line import *; "
    work += "name = 'caf\\xe9\\udcff'; outcome = Outcome(name, {'name': name}); "
    work += "sys.exit(run_command(options(*sys.argv[1:]), lambda: outcome, ()))"
    told = {}
    for more in ([], ["--json"]):
        told[len(more)] = subprocess.run(
            [sys.executable, "-c", work, *more], capture_output=True, check=True,
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"},
        ).stdout.decode(encoding)  # fmt: skip
    assert told[0] == {"utf-8": "caf\xe9\\udcff\n", "ascii": "caf\\xe9\\udcff\n"}[encoding]
    assert json.loads(told[1]) == {"name": "caf\xe9\udcff"}
