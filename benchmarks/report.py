"""Assembles docs/benchmarks.md from the JSON that the benchmarks have written. Nothing is measured here.

Usage: python -m benchmarks.report [--results docs/benchmarks] [--out docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT

# The page's order: the layer, the data, the nets, whole runs, other hardware. What is not named comes after, by name.
ORDER = (
    "head", "head_plain_memory", "head_arcface", "heads", "tammes", "growth", "records", "record_shuffle",
    "record_memory", "order", "backbones", "whole_run", "verification", "onnx_fidelity", "onnx", "start", "saving",
    "long_run", "long_run_2_ranks", "gpu", "scaling_model", "sampling",
)  # fmt: skip
HEAD = """# Benchmarks

Written by `make bench` (`python -m benchmarks.NAME` for one, `python -m benchmarks.report` for this page); the figures
behind every table are in `docs/benchmarks/NAME.json`.

**Method.** A machine that others use is never quiet, so absolute times belong to the machine and the hour, and what
counts is a ratio. Contestants run in one process and take turns within each round, the order reversed every other
round; a ratio is the median over the rounds of the two values of the same round, and the spread is the smallest and
largest value. Peak memory is measured in a process of its own per contestant, as is the time to start. Contestants in
one process share the memory settings that train.py makes on a CPU (`utils/memory.py`), unless a title or a line says
otherwise; "as it ships" is a process of its own, with what each arranges itself.
Where something bounds a step from below (its matrix products alone, a bare decode loop) it takes its turn as well and
its time divided by ours is the fraction of that limit reached. Peers run from a local clone (`--arcface-torch DIR`) in
their own arithmetic; what has to be replaced for a CPU is listed at the top of `benchmarks/peer.py`. Without a clone
their rows are left out."""
_FACTS = ("commit", "hardware", "cores", "threads", "torch", "python", "huge_pages", "load_before")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: docs/benchmarks")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="default: docs/benchmarks.md")
    options = parser.parse_args(arguments)
    found = read_results(options.results)
    if not found:
        parser.error(
            f"--results: {options.results} holds no result; run a benchmark first, say python -m benchmarks.head"
        )
    options.out.write_text(page(found), encoding="utf-8")
    print(f"wrote {options.out}: {', '.join(found)}")
    return 0


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> what that benchmark wrote, in the page's order.

    Raises:
        ValueError: a file is no result of a benchmark.
    """
    found: dict[str, dict[str, Any]] = {}
    places = {name: index for index, name in enumerate(ORDER)}
    for path in sorted(folder.glob("*.json"), key=lambda path: (places.get(path.stem, len(ORDER)), path.stem)):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"title", "markdown"} <= set(content):
            raise ValueError(f"{path}: a result has `title` and `markdown`, as benchmarks.measure.save writes them")
        found[path.stem] = content
    return found


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Method, contents, one section per result."""
    contents = "\n".join(f"- [{result['title']}](#{anchor(result['title'])})" for result in results.values())
    sections = [
        f"## {result['title']}\n\n{result['markdown'].strip()}\n\n{origin(name, result)}"
        for name, result in results.items()
    ]
    return "\n\n".join([HEAD, contents, *sections]) + "\n"


def origin(name: str, result: Mapping[str, Any]) -> str:
    """Where and on what a result was taken, as far as it says."""
    facts = [f"{fact.replace('_', ' ')} {result[fact]}" for fact in _FACTS if result.get(fact) is not None]
    peer = result.get("peer")
    if isinstance(peer, Mapping):
        facts.append("arcface_torch " + " ".join(f"{key} {value}" for key, value in peer.items()))
    return "; ".join([f"[{name}.json](benchmarks/{name}.json)", *facts])


def anchor(title: str) -> str:
    """GitHub's anchor of a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
