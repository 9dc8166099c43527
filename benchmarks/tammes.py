"""Prototypes on a sphere: how wide each head spreads C classes over S^(D-1), beside the optimum. No data, no network.

Usage: python -m benchmarks.tammes [--classes 8] [--dim 3] [--scales 16,64,1:1000] [--seeds 5] [--steps 1000]

Every class has one embedding, a free unit vector; embeddings and prototypes start at random and move together under the
head's own gradient, through PartialFC in float64, until the learning rate has fallen to 0. What is counted is the class
margin, the smallest angle between two prototypes. The most that can be reached is the Tammes problem's optimum.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import RESULTS, save, surroundings, table
from benchmarks.tammes_optimum import largest_class_margin
from benchmarks.tammes_runs import TERMS, Setting, measured

NAMES = {"normface": "NormFace", "cosface": "CosFace", "arcface": "ArcFace", "lm_softmax": "LM-Softmax"}
OTHERS = "4x3,10x10,6x3,10x2,12x3"
SHARED = 5.0  # degrees; closer ones count as one prototype


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, writes the JSON."""
    options = parse(arguments)
    margins = {"cosface": options.cosface_margin, "arcface": options.arcface_margin}
    setting = Setting(options.steps, options.lr, options.optimizer, options.embeddings, options.weight, margins)
    torch.set_num_threads(1)  # matrices of a few rows
    context = surroundings()
    rows = [
        measured(options.classes, options.dim, terms, scales, head, options.seeds, setting)
        for head in NAMES
        for terms in TERMS
        for scales in options.scales
    ]
    others = [
        measured(classes, dim, terms, options.scales[-1], head, options.seeds, setting)
        for classes, dim in options.others
        for head in NAMES
        for terms in ("alone", "+ R_sm")
    ]
    markdown = described(rows, others, options)
    given = {name: value for name, value in vars(options).items() if name != "out"}
    path = save("tammes", title(options), markdown, {**context, "options": given, "rows": rows + others},
                options.out)  # fmt: skip
    print(f"{markdown}\nwrote {path}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tammes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--classes", type=int, default=8, metavar="C", help="prototypes (default: %(default)s)")
    add("--dim", type=int, default=3, metavar="D", help="dimensions of the space around the sphere (default: 3)")
    add("--scales", default="16,64,1:1000", help="schedules: S, or FROM:TO for one that grows (default: %(default)s)")
    add("--others", default=OTHERS, help="further C x D, under the last schedule; '' for none (default: %(default)s)")
    add("--seeds", type=int, default=5, help="runs of each (default: %(default)s)")
    add("--steps", type=int, default=1000, help="optimizer steps of a run (default: %(default)s)")
    add("--lr", type=float, default=0.1, help="at the start; falls to 0 (default: %(default)s)")
    add("--optimizer", choices=("adamw", "sgd"), default="sgd", help="(default: %(default)s)")
    add("--embeddings", choices=("free", "prototypes"), default="free",
        help="free unit vectors, or each on its prototype (default: %(default)s)")  # fmt: skip
    add("--weight", type=float, default=1.0, help="of each regulariser (default: %(default)s)")
    add("--cosface-margin", type=float, default=0.4, help="in cosine (default: %(default)s)")
    add("--arcface-margin", type=float, default=0.5, help="radians (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the JSON (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    try:
        options.scales = [schedule(text) for text in options.scales.split(",")]
        options.others = [size(text) for text in options.others.split(",") if text]
        largest_class_margin(options.classes, options.dim)
    except ValueError as error:
        parser.error(str(error))
    if options.seeds < 1 or options.steps < 1:
        parser.error(f"--seeds and --steps must be 1 or more, got {options.seeds} and {options.steps}")
    return options


def schedule(text: str) -> tuple[float, float]:
    """`64` -> (64, 64), `1:1000` -> (1, 1000).

    Raises:
        ValueError: no scale > 0.
    """
    first, _, last = text.partition(":")
    try:
        scales = float(first), float(last or first)
    except ValueError:
        scales = 0.0, 0.0
    if not min(scales) > 0:
        raise ValueError(f"--scales: {text!r} is no schedule; write a scale > 0 such as 64, or FROM:TO such as 1:1000")
    return scales


def size(text: str) -> tuple[int, int]:
    """`10x2` -> (10, 2).

    Raises:
        ValueError: no two numbers of 2 or more.
    """
    classes, _, dim = text.partition("x")
    if not (classes.isdecimal() and dim.isdecimal()):
        raise ValueError(f"--others: {text!r} is no size; write CxD, such as 10x2")
    largest_class_margin(int(classes), int(dim))
    return int(classes), int(dim)


def title(options: argparse.Namespace) -> str:
    """Heading of the section."""
    return f"Prototypes on a sphere: {options.classes} classes in {options.dim} dimensions"


def described(
    rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], options: argparse.Namespace
) -> str:
    """Markdown: a table of the heads under every schedule, one of the other sizes, and what they belong to."""
    columns = [f"s = {first:g}" if first == last else f"s {first:g} .. {last:g}" for first, last in options.scales]
    cells = {(row["head"], row["terms"], (row["scale_from"], row["scale_to"])): cell(row) for row in rows}
    lines = [
        [label(head, terms), *(cells[head, terms, scales] for scales in options.scales)]
        for head in NAMES
        for terms in TERMS
    ]
    optimum = optimum_words(options.classes, options.dim)
    text = f"Class margin in degrees: mean ± deviation over {options.seeds} seeds (the best); optimum {optimum}.\n\n"
    text += table(["head", *columns], lines)
    if others:
        sizes = dict.fromkeys((row["classes"], row["dim"]) for row in others)
        names = dict.fromkeys((row["head"], row["terms"]) for row in others)
        by_size = {(row["classes"], row["dim"], row["head"], row["terms"]): cell(row) for row in others}
        headings = ["head", *(f"{classes} on S^{dim - 1}" for classes, dim in sizes)]
        lines = [["optimum", *(optimum_words(*of) for of in sizes)]]
        lines += [[label(*name), *(by_size[(*of, *name)] for of in sizes)] for name in names]
        text += f"\n\nOther sizes, {columns[-1]}.\n\n" + table(headings, lines)
    every = [margin for row in (*rows, *others) for margin in row["class_margins"]]
    return (
        f"{text}\n\n{options.steps} steps of {options.optimizer}, lr {options.lr:g} falling to 0, embeddings: "
        f"{options.embeddings}; margins: CosFace {options.cosface_margin:g}, ArcFace {options.arcface_margin:g}; "
        f"regularisers with weight {options.weight:g}. Two classes shared one prototype at the end of "
        f"{sum(margin < SHARED for margin in every)} of {len(every)} runs. [What it means](prototypes.md)."
    )


def label(head: str, terms: str) -> str:
    """First cell of a row."""
    return NAMES[head] if terms == "alone" else f"{NAMES[head]} {terms}"


def optimum_words(num_classes: int, dim: int) -> str:
    """The optimum in degrees, or that it is not known here."""
    optimum = largest_class_margin(num_classes, dim)
    return "not known here" if optimum is None else f"{optimum:.3f}"


def cell(row: Mapping[str, Any]) -> str:
    """Mean, spread and best."""
    return f"{row['mean']:.2f} ± {row['std']:.2f} ({row['best']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
