"""The head step (forward, backward, optimizer) beside arcface_torch's PartialFC_V2 with SGD, and beside its products.

Usage: python -m benchmarks.head [--arcface-torch DIR] [--head cosface|arcface] [--threads N] [--rounds 7]
       python -m benchmarks.head --heads all        what every registered head costs, relative to softmax

Times: in a process of their own for each contestant and round, each with the memory settings it ships with; and in one
process, contestants in turn within each round, with the same settings for all. Memory: a process each, its peak less
what it held after its imports and less weights and momentum. With --sample-rate the step is repeated with that share of
the classes, and with --grow times as many classes of which as many take part as before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.head_step import OURS, PEER, PEER_HEADS, PRODUCTS, Layer, Setting, ours, products, theirs, timed
from benchmarks.measure import RESULTS, as_in_training, run_child, save, surroundings, table
from benchmarks.peer import ArcFaceTorch, add_peer_option, find_peer
from losses import HEADS
from utils.turns import Summary, alternate, summarize

_MIB = 2**20
_COMPARED_STEPS = 6  # the batches and prototypes of the first come back in the last


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the JSON."""
    options = parsed(arguments)
    if not options.plain_memory:
        as_in_training()
    if options.threads:
        torch.set_num_threads(options.threads)
    context = surroundings()
    if options.heads:
        markdown, data = costs_of_heads(options)
        title, name = "What a head costs", "heads"
    else:
        markdown, data = beside_the_peer(options)
        title, name = f"Head step, {options.head}", "head" if options.head == "cosface" else f"head_{options.head}"
    if options.plain_memory:
        title, name = f"{title}, the system's own memory settings", f"{name}_plain_memory"
    print(markdown)
    path = save(name, title, markdown, {**context, **data}, options.out)
    print(f"wrote {path}")
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.head", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--head", choices=PEER_HEADS, default="cosface", help="default: %(default)s")
    add("--heads", help="`all` or comma-separated names: only their cost relative to softmax")
    add("--classes", type=int, default=100_000, help="C (default: %(default)s)")
    add("--head-classes", type=int, default=10_000, help="C with --heads (default: %(default)s)")
    add("--dim", type=int, default=512, help="D (default: %(default)s)")
    add("--batch", type=int, default=128, help="N (default: %(default)s)")
    add("--sample-rate", type=float, default=0.1, help="of the second table; 1 leaves it out (default: %(default)s)")
    add("--grow", type=int, default=10, help="factor on the classes; 1 leaves it out (default: %(default)s)")
    add("--rounds", type=int, default=7, help="medians are over them (default: %(default)s)")
    add("--threads", type=int, help="CPU threads (default: torch's)")
    add("--plain-memory", action="store_true", help="leave memory as the system gives it, not as train.py arranges it")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the JSON (default: docs/benchmarks)")
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    if options.heads:
        names = [name for index, name in enumerate(HEADS) if HEADS[name] not in list(HEADS.values())[:index]]
        options.heads = names if options.heads == "all" else options.heads.split(",")
        unknown = sorted(set(options.heads) - set(HEADS))
        if unknown:
            parser.error(f"--heads: no head {', '.join(unknown)}; there are {', '.join(HEADS)}")
    return options


def beside_the_peer(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """All classes, sampled classes, and the same sample of many more classes."""
    peer, reason = find_peer(options.arcface_torch)
    full = Setting(options.classes, 1.0, options.batch, options.dim, options.head)
    settings = {"all": full}
    if options.sample_rate < 1:
        settings["sampled"] = replace(full, rate=options.sample_rate)
    # Children first: what this process holds later would leave them less memory.
    memory = {key: as_shipped(setting, peer, options.rounds) for key, setting in settings.items()}
    data: dict[str, Any] = {"rounds": options.rounds, "peer": peer.describe() if peer else reason, "results": {}}
    parts: list[str] = [reason] if reason else []
    with nullcontext() if peer is None else peer.running():
        for key, setting in settings.items():
            grown = replace(setting, classes=setting.classes * options.grow, rate=setting.rate / options.grow)
            values, losses = times_of(setting, grown if key == "sampled" and options.grow > 1 else None, peer, options)
            result = {"setting": asdict(setting), "seconds": values, "losses": losses, "memory": memory[key]}
            data["results"][key] = result
            parts += described(setting, result, grown)
    return "\n\n".join(parts), data


def as_shipped(setting: Setting, peer: ArcFaceTorch | None, rounds: int) -> dict[str, dict[str, Any]]:
    """What a child per contestant and round reports, in turn: the one with the median peak, the seconds of all."""
    names = (OURS, PEER) if peer else (OURS,)
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def run(name: str) -> float:
        clone = [f"--arcface-torch={peer.directory}"] if peer and name == PEER else []
        steps = 3 if setting.rate == 1 else 15
        arguments = [name, *setting.arguments(), f"--steps={steps}", *clone]
        reports[name].append(run_child("benchmarks.head_step", arguments, threads=torch.get_num_threads()))
        return float(statistics.median(reports[name][-1]["seconds"]))

    values = alternate({name: partial(run, name) for name in names}, rounds)
    found = {}
    for name in names:
        reports[name].sort(key=lambda report: float(report["peak_bytes"]))
        peaks = [report["peak_bytes"] for report in reports[name]]
        found[name] = {**reports[name][rounds // 2], "seconds_by_round": values[name], "peaks": peaks}
    return found


def times_of(
    setting: Setting, grown: Setting | None, peer: ArcFaceTorch | None, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds a step in each round, and the losses of the first steps from equal prototypes, by contestant."""
    layers: dict[str, Layer] = {OURS: ours(setting)}
    if peer:
        layers[PEER] = theirs(peer, setting)
        layers[PEER].weight.copy_(layers[OURS].weight)
    losses = {name: [float(layer.step()) for _ in range(_COMPARED_STEPS)] for name, layer in layers.items()}
    if grown:
        layers[grown_name(OURS)] = ours(grown)
        if peer:
            layers[grown_name(PEER)] = theirs(peer, grown)
    runs: dict[str, Callable[[], Any]] = {name: layer.step for name, layer in layers.items()}
    runs[PRODUCTS] = products(setting)
    # A turn of about half a second: shorter ones measure the scheduler.
    steps = {name: min(20, max(1, round(0.5 / min(timed(run, 1) for _ in range(2))))) for name, run in runs.items()}
    turns = {name: turn(run, steps[name]) for name, run in runs.items()}
    return alternate(turns, options.rounds), losses


def turn(run: Callable[[], Any], steps: int) -> Callable[[], float]:
    """One contestant's turn: seconds per step."""
    return lambda: timed(run, steps)


def grown_name(name: str) -> str:
    """Of the contestant with more classes and the same number of them sampled."""
    return f"{name}, more classes"


def described(setting: Setting, result: Mapping[str, Any], grown: Setting) -> list[str]:
    """Heading, table and what it says."""
    values, memory, losses = result["seconds"], result["memory"], result["losses"]
    summaries = summarize(values, OURS)
    rows = []
    for name, summary in summaries.items():
        used = memory.get(name)
        rows.append(
            [
                name, *times(summary), mebibytes(used, "peak_bytes"), mebibytes(used, "extra_bytes"),
                mebibytes(used, "gradient_bytes"),
            ]
        )  # fmt: skip
    headings = ["contestant", "step, ms", "spread", "time / ours", "peak, MiB", "beyond weights, momentum", "gradient"]
    sampled = "" if setting.rate == 1 else f", {setting.active_classes:,} of them sampled (rate {setting.rate:g})"
    size = f"**C = {setting.classes:,}{sampled}**, D = {setting.embedding_size}, N = {setting.batch}, float32"
    notes = [f"The three products take {summaries[PRODUCTS].ratio:.0%} of our time."]
    if PEER in summaries:
        extra = memory[PEER]["extra_bytes"] / max(1, memory[OURS]["extra_bytes"])
        notes.append(f"Ours is {summaries[PEER].ratio:.2f} times as fast, in 1/{extra:.1f} of the extra memory.")
        shipped = summarize({name: memory[name]["seconds_by_round"] for name in (OURS, PEER)}, OURS)
        notes.append(
            f"Each as it ships, in a process of its own: {shipped[OURS].median * 1e3:.0f} ms beside "
            f"{shipped[PEER].median * 1e3:.0f} ms, {shipped[PEER].ratio:.2f} times as fast."
        )
        if setting.rate == 1:
            pairs = zip(losses[OURS], losses[PEER], strict=True)
            worst = max(abs(own - other) / max(abs(other), 1e-6) for own, other in pairs)
            notes.append(f"Losses of the first {len(losses[OURS])} steps differ by at most {worst:.0e} of their value.")
    for name in (OURS, PEER):
        if grown_name(name) in values:
            ratio = summarize(values, name)[grown_name(name)].ratio
            notes.append(f"With {grown.classes:,} classes and the same sample, a step of {name} takes {ratio:.2f} x.")
    return [size, table(headings, rows), " ".join(notes)]


def times(summary: Summary) -> list[str]:
    """Median, smallest and largest in milliseconds, ratio to the baseline."""
    digits = 0 if summary.median >= 0.1 else 1
    median, smallest, largest = (
        f"{value * 1e3:.{digits}f}" for value in (summary.median, summary.smallest, summary.largest)
    )
    return [median, f"{smallest} - {largest}", f"{summary.ratio:.2f}"]


def mebibytes(found: Mapping[str, Any] | None, key: str) -> str:
    """A child's number of bytes, where there was a child."""
    return f"{found[key] / _MIB:.0f}" if found else ""


def costs_of_heads(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Step time of each head relative to softmax."""
    names = ["softmax", *(name for name in options.heads if name != "softmax")]
    setting = Setting(options.head_classes, 1.0, options.batch, options.dim)
    layers = {name: ours(replace(setting, head=name), {}) for name in names}
    for layer in (*layers.values(), *layers.values()):
        layer.step()
    steps = max(1, round(0.2 / min(timed(layers["softmax"].step, 1) for _ in range(3))))
    values = alternate({name: turn(layer.step, steps) for name, layer in layers.items()}, options.rounds)
    summaries = summarize(values, "softmax")
    rows = [[name, *times(summary)] for name, summary in summaries.items()]
    size = (
        f"Options as by default, C = {setting.classes:,}, D = {setting.embedding_size}, N = {setting.batch}, float32."
    )
    markdown = f"{size}\n\n{table(['head', 'step, ms', 'spread', 'time / softmax'], rows)}"
    return markdown, {"setting": asdict(setting), "rounds": options.rounds, "seconds": values}


if __name__ == "__main__":
    sys.exit(main())
