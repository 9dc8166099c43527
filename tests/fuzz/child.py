"""One fuzzing process: `python -m tests.fuzz.child NAME ...` under limits; tests.fuzz starts it. No parser here."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import warnings
from pathlib import Path

from tests.fuzz.guard import Guard
from tests.fuzz.loop import Fuzzer
from tests.fuzz.target import Target


def find_targets(folder: Path) -> dict[str, Target]:
    """Every target by its name: those that a file NAME_targets.py of the folder lists as NAME_TARGETS."""
    found: dict[str, Target] = {}
    for path in sorted(folder.glob("*_targets.py")):
        module = importlib.import_module(f"tests.fuzz.{path.stem}")
        for target in getattr(module, path.stem.upper()):
            assert target.name not in found, f"{path.name}: there are two targets named {target.name}"
            found[target.name] = target
    return found


TARGETS = find_targets(Path(__file__).parent)


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    """What tests.fuzz asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--list", action="store_true")
    return parser.parse_args(argv)


def quiet() -> None:
    """Image libraries write about damage to stderr, and Python about odd literals; that is not what is looked for."""
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    warnings.simplefilter("ignore")


def main() -> None:
    """Fuzzes the named targets one after another and writes result.json for the last, or prints all."""
    options = options_of()
    if options.list:
        print("\n".join(TARGETS))
        return
    quiet()
    scratch = options.scratch.resolve()
    os.chdir(scratch)
    fuzzers = []
    for name in options.names:
        (scratch / name).mkdir()
        fuzzers.append(Fuzzer(TARGETS[name], scratch / name, None, options.keep))
    guard = Guard(scratch, memory=4 << 30, cpu_seconds=int(min(options.seconds, 7200)) + 60)
    tallies = []
    for fuzzer in fuzzers:
        fuzzer.guard = guard
        tallies.append(fuzzer.loop(options.inputs, options.seconds, options.seed).to_dict())
        if (scratch / "CANARY").exists():
            tallies[-1]["findings"].append({"kind": "code", "where": "the canary was made", "bytes": 0, "file": ""})
    if options.keep is not None:
        (options.keep / "result.json").write_text(json.dumps(tallies[-1]))
    else:
        print(json.dumps(tallies))


if __name__ == "__main__":
    main()
