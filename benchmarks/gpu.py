"""One NVIDIA GPU in one call of under ten minutes: layers, nets, the largest layer, a whole run from records.

Usage: python -m benchmarks.gpu [--arcface-torch DIR] [--rec DIR] [--minutes 7] [--out FOLDER]
       python -m benchmarks.gpu --device cpu --tiny      the same code at sizes of no meaning, to see that it works

Without a GPU the page gets a table marked "not yet run". A part that would begin after --minutes is left out and named.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks.backbones import Variant
from benchmarks.gpu_steps import Cost, head_cost, largest, net_speed, product_rate, their_net_speed
from benchmarks.measure import RESULTS, ROOT, save, surroundings, table
from benchmarks.peer import ArcFaceTorch, add_peer_option, find_peer
from benchmarks.whole_run import train, write_subset

NETS = {
    "bf16": Variant(bf16=True),
    "bf16, channels_last": Variant(channels_last=True, bf16=True),
    "bf16, channels_last, compiled": Variant(channels_last=True, bf16=True, compiled=True),
}
AIMS = (
    "Aims: layer 5x (bf16) and 1.5x (fp32) as fast as PartialFC_V2, peak memory within 10 % of weights and momentum, "
    "60 % of the measured bf16 rate; nets 1.5x."
)
NOT_RUN = f"**Not yet run**: no CUDA device was at hand. `python -m benchmarks.gpu` fills this table. {AIMS}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what fits into the time, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--minutes", type=float, default=7, help="begin nothing after these (default: %(default)s)")
    parser.add_argument("--rec", type=Path, default=ROOT / "data" / "faces_small", help="generated where not there")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.json")
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    has_gpu = device.type == "cuda" and torch.cuda.is_available()
    data: dict[str, Any] = {"is_run": has_gpu}
    markdown = f"{NOT_RUN}\n\n{empty_table()}"
    if has_gpu or options.device == "cpu":
        if not (has_gpu or options.tiny):
            parser.error("--device cpu: only with --tiny")
        measured, found = measure(options, device)
        data |= measured
        print(found)
        markdown = found if has_gpu else markdown  # a CPU's figures are no GPU's, whatever they are
    else:
        print(markdown)
    context = surroundings(device if has_gpu else None)
    print(f"\nwrote {save('gpu', 'One GPU', markdown, {**context, **data}, options.out)}")
    return 0


def measure(options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], str]:
    """All parts, the most telling first; results by part, and the page's text."""
    peer, reason = find_peer(options.arcface_torch)
    parts: dict[str, Callable[[], tuple[Any, str]]] = {
        "layer": lambda: layers(options.tiny, device, peer),
        "nets": lambda: nets(options.tiny, device, peer),
        "largest": lambda: largest_layers(options.tiny, device),
        "whole run": lambda: whole(options, device),
    }
    start, data, texts = time.perf_counter(), {}, [AIMS, *([reason] if reason else [])]
    with nullcontext() if peer is None else peer.running(device):
        for name, run in parts.items():
            if time.perf_counter() - start > options.minutes * 60:
                texts.append(f"{name}: left out, the time was over.")
                continue
            data[name], text = run()
            texts.append(text)
            print(f"{name}: done after {time.perf_counter() - start:.0f} s", flush=True)
    return data, "\n\n".join(texts)


def layers(tiny: bool, device: torch.device, peer: ArcFaceTorch | None) -> tuple[list[dict[str, Any]], str]:
    """Step of the layer at growing C: ours in bf16 and fp32, the peer's in fp32, which is what it ships."""
    sizes, batch, steps = ((200, 500), 8, 2) if tiny else ((100_000, 1_000_000, 2_000_000, 10_000_000), 1024, 7)
    rate = product_rate(sizes[0], batch, device, steps, torch.bfloat16)
    rows: list[dict[str, Any]] = []
    for classes in sizes:
        found = {
            "bf16": head_cost(classes, batch, device, steps, is_reduced=True),
            "fp32": head_cost(classes, batch, device, steps),
            "theirs": head_cost(classes, batch, device, steps, peer=peer) if peer else None,
        }
        rows.append({"classes": classes, **{name: cost and vars(cost) for name, cost in found.items()}})
        bf16 = found["bf16"]
        rows[-1]["share_of_rate"] = 6 * batch * 512 * classes / bf16.seconds / rate if bf16 else None
        for name in ("bf16", "fp32"):
            rows[-1][f"ratio_{name}"] = ratio(found["theirs"], found[name])
    body = [
        [
            f"{row['classes']:,}", *(milliseconds(row[name], peer, name) for name in ("bf16", "fp32", "theirs")),
            *(number(row[f"ratio_{name}"], "{:.1f}") for name in ("bf16", "fp32")),
            number(row["share_of_rate"], "{:.0%}"), beyond(row["bf16"]), beyond(row["theirs"]),
        ]
        for row in rows
    ]  # fmt: skip
    text = (
        f"Layer: forward, backward, SGD; N = {batch}, D = 512, CosFace. Three bf16 products alone reach "
        f"{rate / 1e12:.3g} TFLOP/s here.\n\n"
    )
    return rows, text + table(layer_headings(), body)


def layer_headings() -> list[str]:
    """Of the layer's table."""
    return ["classes", "ours bf16, ms", "ours fp32, ms", "PartialFC_V2 fp32, ms", "ratio bf16", "ratio fp32",
            "of the bf16 rate", "peak / (weights + momentum)", "theirs"]  # fmt: skip


def empty_table() -> str:
    """The layer's table before any GPU has run it."""
    sizes = ("100,000", "1,000,000", "2,000,000", "10,000,000")
    return table(layer_headings(), [[size, *["not yet run"] * 8] for size in sizes])


def nets(tiny: bool, device: torch.device, peer: ArcFaceTorch | None) -> tuple[list[dict[str, Any]], str]:
    """Images per second of r50 and r100 beside the peer's fp16 path."""
    names, batch, steps = (("r18",), 2, 1) if tiny else (("r50", "r100"), 128, 10)
    variants = {name: variant for name, variant in NETS.items() if not (tiny and variant.compiled)}
    rows: list[dict[str, Any]] = []
    for name in names:
        theirs = their_net_speed(peer, name, batch, device, steps) if peer else None
        speeds = {kind: net_speed(name, variant, batch, device, steps) for kind, variant in variants.items()}
        best = max(speeds.values())
        rows.append({"network": name, "theirs": theirs, "ours": speeds, "ratio": best / theirs if theirs else None})
    body = [
        [row["network"], *(f"{speed:,.0f}" for speed in row["ours"].values()), number(row["theirs"], "{:,.0f}"),
         number(row["ratio"], "{:.2f}")]
        for row in rows
    ]  # fmt: skip
    return rows, f"Nets, batch {batch}, images/s.\n\n" + table(
        ["network", *variants, "arcface_torch fp16", "best / theirs"], body
    )


def largest_layers(tiny: bool, device: torch.device) -> tuple[dict[str, int], str]:
    """Most identities on the device, SGD, with all classes and a tenth of them."""
    batch, memory = (8, 1e7) if tiny else (1024, float(torch.cuda.mem_get_info(device)[0]))
    found = {str(rate): largest(rate, batch, device, memory) for rate in (1.0, 0.1)}
    words = ", ".join(f"{count / 1e6:.3g} M at sample_rate {float(rate):g}" for rate, count in found.items())
    return found, f"Most identities that train on this card (bf16 products, N = {batch}, no backbone): {words}."


def whole(options: argparse.Namespace, device: torch.device) -> tuple[dict[str, float], str]:
    """train.py from records; what is left of the net's own speed."""
    options.network, options.width, options.workers = ("tiny", 16, 0) if options.tiny else ("r50", 512, 12)
    options.batch, options.steps, options.warm_up = (4, 4, 1) if options.tiny else (128, 60, 20)
    options.workers = min(options.workers, os.cpu_count() or 1)
    options.threads = 1 if options.tiny else os.cpu_count() or 1
    more = {"precision": "fp32"} if device.type == "cpu" else {"precision": "bf16", "compile": True}
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        data = write_subset(options.rec, Path(name) / "records", options.steps * options.batch)
        options.rec = Path(name) / "records"
        found = train(options, Path(name) / "run", device.type, **more)
    return found, (
        f"From records ({data['images']} images, {options.network}, {more['precision']}, batch {options.batch}, "
        f"{options.workers} readers): {found['images_per_second']:,.0f} images/s, {found['data_wait']:.1%} of the time "
        "waiting for data."
    )


def ratio(theirs: Cost | None, ours: Cost | None) -> float | None:
    """How many times as fast ours is."""
    return theirs.seconds / ours.seconds if theirs and ours else None


def number(value: float | None, pattern: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else pattern.format(value)


def milliseconds(cost: dict[str, Any] | None, peer: ArcFaceTorch | None, name: str) -> str:
    """Of a step, or why there is none."""
    if cost is None:
        return "out of memory" if peer is not None or name != "theirs" else "-"
    return f"{cost['seconds'] * 1e3:.2f}"


def beyond(cost: dict[str, Any] | None) -> str:
    """Peak memory relative to weights and momentum."""
    return "-" if cost is None or not cost["peak_bytes"] else f"{cost['peak_bytes'] / cost['lasting']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
