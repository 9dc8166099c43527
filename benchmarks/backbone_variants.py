"""Puts benchmarks/backbones.py on the page: a net's training step plain, channels_last and compiled, beside the peer.

Usage: python -m benchmarks.backbone_variants [--networks mbf,small,r18] [--arcface-torch DIR] [--rounds 5]

The variants of a net take turns within each round, and arcface_torch's own net of the same name takes its turn with
them. Float32; forward, backward from a random gradient, SGD. About five minutes on two idle cores, mostly compiling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.backbones import PLAIN, VARIANTS, training_step
from benchmarks.head_step import timed
from benchmarks.measure import RESULTS, as_in_training, save, surroundings, table
from benchmarks.peer import ArcFaceTorch, add_peer_option, find_peer
from benchmarks.training_loops import one_net_step
from utils.turns import Summary, alternate, summarize

THEIRS = "arcface_torch"
_KINDS = (PLAIN, "channels_last", "compile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backbone_variants", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--networks", default="mbf,small,r18", help="comma-separated (default: %(default)s)")
    parser.add_argument("--variants", default=",".join(_KINDS), help="of benchmarks.backbones (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of backbones.json")
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    variants = options.variants.split(",")
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        parser.error(f"--variants: no {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    as_in_training()
    peer, reason = find_peer(options.arcface_torch)
    context, rows = surroundings(), []
    with nullcontext() if peer is None else peer.running():
        for network in options.networks.split(","):
            rows += [{"network": network, **row} for row in measure(network, variants, peer, options)]
    markdown = text(rows, options, reason)
    print(markdown)
    settings = {key: getattr(options, key) for key in ("batch", "steps", "rounds")}
    data = {**context, **settings, "rows": rows, "peer": peer.describe() if peer is not None else reason}
    print(f"\nwrote {save('backbones', 'Backbones', markdown, data, options.out)}")
    return 0


def measure(
    network: str, variants: Sequence[str], peer: ArcFaceTorch | None, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row per contestant: seconds of a turn in each round, and speed relative to the peer's net, else to plain."""
    device = torch.device("cpu")
    steps = {name: training_step(network, VARIANTS[name], device, options.batch) for name in variants}
    theirs = their_net(peer, network)
    if theirs is not None:
        steps[THEIRS] = one_net_step(theirs, options.batch)
    for step in steps.values():
        step()  # compiles
        step()
    values = alternate({name: turn(step, options.steps) for name, step in steps.items()}, options.rounds)
    summaries = summarize(values, THEIRS if theirs is not None else variants[0])
    return [row(name, summary, values[name], options) for name, summary in summaries.items()]


def row(name: str, summary: Summary, values: list[float], options: argparse.Namespace) -> dict[str, Any]:
    """Speeds are the inverse of what was timed; so is the ratio."""
    return {
        "variant": name,
        "images_per_second": options.batch * options.steps / summary.median,
        "spread": (summary.largest - summary.smallest) / summary.median,
        "ratio": 1 / summary.ratio,
        "seconds": values,
    }


def turn(step: Callable[[], None], steps: int) -> Callable[[], float]:
    """Seconds of several steps."""
    return lambda: timed(step, steps) * steps


def their_net(peer: ArcFaceTorch | None, network: str) -> nn.Module | None:
    """The peer's own net of that name, where it has one."""
    if peer is None:
        return None
    try:
        net: nn.Module = peer.module("backbones").get_model(network, dropout=0.0, fp16=False, num_features=512)
    except (ValueError, TypeError):
        return None
    return net


def text(rows: Sequence[dict[str, Any]], options: argparse.Namespace, reason: str) -> str:
    """The table; the ratio's baseline is the peer's net, or the first variant where there is none."""
    body = [
        [f"{row['network']}, {row['variant']}", f"{row['images_per_second']:.1f}", f"{row['spread']:.0%}",
         f"{row['ratio']:.2f}"]
        for row in rows
    ]  # fmt: skip
    head = (
        f"Training step of the net alone, float32, batch {options.batch}, {options.rounds} rounds of {options.steps} "
        "steps in turn. The ratio is to arcface_torch's net of that name, where it has one, else to the first variant."
    )
    note = ["", reason] if reason else []
    return "\n".join([head, *note, "", table(["net", "images/s", "spread", "ratio"], body)])


if __name__ == "__main__":
    sys.exit(main())
