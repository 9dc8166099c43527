"""Every command line of tools/ and eval/ keeps the same promises: help with examples, JSON, errors with status 2."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Without --json: quickstart takes no arguments at all and calls other commands; replay prints a report to be read.
NO_HELP = {"tools.quickstart"}
NO_JSON = {"tools.replay"}


def commands() -> list[str]:
    """Module names of all files of tools/ and eval/ that run as `python -m NAME`."""
    found = []
    for room in ("tools", "eval"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if 'if __name__ == "__main__":' in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return [name for name in found if name not in NO_HELP]


def help_of(name: str, capsys: pytest.CaptureFixture[str], *sub_command: str) -> str:
    main = importlib.import_module(name).main
    with pytest.raises(SystemExit) as ended:
        main([*sub_command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def sub_commands(text: str) -> list[str]:
    found = re.search(r"^  \{([a-z_,-]+)\}", text, re.MULTILINE)
    return found[1].split(",") if found else []


@pytest.mark.parametrize("name", commands())
def test_help_shows_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = help_of(name, capsys)
    pages = [help_of(name, capsys, sub) for sub in sub_commands(text)] or [text]
    for page in pages:
        assert page.startswith(f"usage: python -m {name}"), page.splitlines()[0]
        examples = re.findall(rf"^  (python -m {re.escape(name)} .*)$", page, re.MULTILINE)
        examples += re.findall(rf"^  (torchrun .* -m {re.escape(name)} .*)$", page, re.MULTILINE)
        assert examples, f"{name}: no example in its help"
        options = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", page))
        for example in examples:
            words = shlex.split(example)
            given = {word.split("=")[0] for word in words[words.index(name) + 1 :] if re.match(r"--?[a-z]", word)}
            assert given <= options, f"{example}: {given - options} is no option of {name}"
        assert name in NO_JSON or "--json" in page, f"{name}: no --json"


@pytest.mark.parametrize("name", commands())
def test_an_option_that_does_not_exist_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(name).main
    with pytest.raises(SystemExit) as ended:
        main(["--no-such-option"])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
