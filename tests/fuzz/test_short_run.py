"""A short run of the fuzzer over every target, in a process with its limits, and proof that the fuzzer can fail."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.guard import ROOT

INPUTS = 150


def child(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One fuzzing process, started from the project's folder."""
    command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_every_target_keeps_its_promises(tmp_path: Path) -> None:
    names = child("tests.fuzz.child", "--list").stdout.split()
    assert len(names) >= 20
    done = child("tests.fuzz.child", *names, "--inputs", str(INPUTS), "--scratch", str(tmp_path), "--seed", "5")
    assert done.returncode == 0, done.stderr[-2000:]
    for tally in json.loads(done.stdout):
        assert tally["inputs"] == INPUTS
        assert not tally["findings"], f"{tally['target']}: {tally['findings']}"
        assert tally["target"] == "metrics" or sum(tally["refused"].values()) > 0, "damage that nobody notices is none"


BROKEN = """
import os, pickle, sys, time
from pathlib import Path
from tests.fuzz.guard import Guard
from tests.fuzz.loop import Fuzzer
from tests.fuzz.target import Target

def run(data, folder):
    kind = data.decode()
    if kind == "open":
        pickle.loads(Path(sys.argv[2]).read_bytes())
    elif kind == "error":
        raise KeyError("a")
    elif kind == "hang":
        time.sleep(60)
    elif kind == "memory":
        b"x" * (80 << 20)
    elif kind == "outside":
        open("/etc/hostname").read()
    elif kind == "own":
        raise ValueError

scratch = Path(sys.argv[1])
target = Target("broken", lambda _: [b"fine"], run, (ValueError,), seconds=2)
fuzzer = Fuzzer(target, scratch, None, None)
fuzzer.guard = Guard(scratch, memory=2 << 30, cpu_seconds=60)
for kind in (b"fine", b"own", b"error", b"hang", b"memory", b"outside", b"open"):
    fuzzer.feed(kind)
print(fuzzer.tally.accepted, dict(fuzzer.tally.refused), sorted({finding["kind"] for finding in fuzzer.tally.findings}))
"""


class Writes:
    """Unpickled the ordinary way it opens a file for writing."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and audit as Linux has them")
def test_the_fuzzer_sees_errors_hangs_memory_and_code(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    attack = tmp_path / "scratch" / "attack"
    attack.write_bytes(pickle.dumps(Writes(str(tmp_path / "written"))))
    (tmp_path / "broken.py").write_text(BROKEN)
    search = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = child("broken", str(tmp_path / "scratch"), str(attack), PYTHONPATH=search)
    assert done.returncode == 0, done.stderr[-2000:]
    # PermissionError: what the guard raises, a strange error to the parser as well
    kinds = "['KeyError', 'PermissionError', 'guard', 'hang', 'memory']"
    assert done.stdout.strip() == f"2 {{'ValueError': 1}} {kinds}"
    assert not (tmp_path / "written").exists()
