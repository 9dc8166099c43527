"""The reader of console blocks itself: what it takes for equal, and what not."""

from __future__ import annotations

from pathlib import Path

from tests.docs.console import make_workspace, matches, read_steps, run_step

PAGE = """Text.

```console
$ echo one; \\
  echo 2
one
17

$ echo more
...
```

```bash
$ never run
```
"""


def test_steps_are_read_with_their_output(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    first, second = read_steps(tmp_path / "page.md")
    assert (first.line, first.command, first.shown) == (4, "echo one;   echo 2", ["one", "17", ""])
    assert (second.command, second.shown) == ("echo more", ["..."])
    assert matches(first.shown, run_step(first, tmp_path).stdout.splitlines())


def test_numbers_and_hashes_may_differ_and_words_may_not() -> None:
    shown = ["lfw: 90.15 % +- 1.35,  sha256 aa17b82bb303…", "done in 3 s"]
    assert matches(shown, ["lfw: 8.1 % +- 0.2, sha256 0123456789ab", "", "done in 12.5 s"])
    assert not matches(shown, ["lfw: 8.1 % +- 0.2, sha256 0123456789ab", "done in 12.5 minutes"])
    assert not matches(shown, ["lfw: 8.1 % +- 0.2, sha256 0123456789ab"])
    assert not matches(shown, [*shown, "error"])


def test_dots_stand_for_any_lines() -> None:
    assert matches(["a", "...", "b"], ["a", "b"])
    assert matches(["a", "...", "b"], ["a", "x", "b", "y", "b"])
    assert matches(["..."], ["anything"])
    assert not matches(["a", "...", "b"], ["a", "b", "c"])
    assert not matches(["...", "b", "...", "d"], ["b", "c"])


def test_a_workspace_runs_the_projects_commands(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "clone")
    (tmp_path / "page.md").write_text("```console\n$ python -m tools.records --help | head -1\n```\n")
    done = run_step(read_steps(tmp_path / "page.md")[0], workspace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python -m tools.records")
