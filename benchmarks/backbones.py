"""Images per second of a backbone's training step: plain, channels_last, bf16, compiled, checkpointed, side by side.

Usage: python -m benchmarks.backbones [--networks tiny,small,mbf,r18] [--batch 32] [--out FILE]

Only the backbone is measured: forward, backward from a random gradient, SGD. The variants of a net take turns within
each round, so that a busy machine slows all of them; the ratio is the median over rounds of a variant's speed
divided by the plain variant's in the same round.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backbones import BACKBONES, backbone_info, build_backbone
from benchmarks.measure import surroundings
from utils.config_values import parse_literal

PLAIN = "plain"


@dataclass(frozen=True)
class Variant:
    """One way to run the same training step."""

    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False
    checkpointing: bool = False


VARIANTS = {
    PLAIN: Variant(),
    "channels_last": Variant(channels_last=True),
    "bf16": Variant(channels_last=True, bf16=True),
    "compile": Variant(channels_last=True, compiled=True),
    "compile+bf16": Variant(channels_last=True, bf16=True, compiled=True),
    "checkpointing": Variant(checkpointing=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backbones", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks",
        default="tiny,small,mbf,r18",
        help="comma-separated, NAME or NAME@OPTION=VALUE as in lsoftmax_mnist@width=0.25 (default: %(default)s)",
    )
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images a step, at least 2 (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are over them (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="steps a round and variant (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, which a busy machine moves less")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/backbones.json"))
    options = parser.parse_args(arguments)
    variants = options.variants.split(",")
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown or options.batch < 2:
        parser.error(f"unknown variant {unknown}, there are {list(VARIANTS)}" if unknown else "--batch: at least 2")
    if PLAIN not in variants:
        variants.insert(0, PLAIN)  # the ratios need it
    if options.threads:
        torch.set_num_threads(options.threads)
    context = surroundings(torch.device(options.device))
    print(", ".join(f"{key} {value}" for key, value in context.items()))
    print(f"{'network':38}{'variant':15}{'images/s':>10}{'spread':>9}{'ratio':>8}{'memory MiB':>12}")
    rows: list[dict[str, Any]] = []
    for name in options.networks.split(","):
        speeds, memory = measure(name, variants, torch.device(options.device), options)
        rows += (summary := summarize(name, speeds, memory))
        for row in summary:
            used = "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}"
            print(
                f"{name:38}{row['variant']:15}{row['images_per_second']:10.1f}{row['spread']:9.0%}"
                f"{row['ratio']:8.2f}{used:>12}",
                flush=True,
            )
    settings = {key: getattr(options, key) for key in ("batch", "rounds", "steps", "cpu_time")}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**context, **settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.out}")
    return 0


def measure(
    name: str, variants: Sequence[str], device: torch.device, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float | None]]:
    """Images per second of each variant in each round, and the peak memory of one step in MiB (None on CPU)."""
    steps = {variant: training_step(name, VARIANTS[variant], device, options.batch) for variant in variants}
    memory: dict[str, float | None] = {}
    for variant, step in steps.items():
        step()  # compiles, and lets the allocator and cuDNN settle
        step()
        if device.type == "cuda":
            held = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            step()
            memory[variant] = (torch.cuda.max_memory_allocated(device) - held) / 2**20
        else:
            memory[variant] = None
    clock = time.process_time if options.cpu_time else time.perf_counter
    speeds: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(options.rounds):
        for variant, step in steps.items():
            start = clock()
            for _ in range(options.steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            speeds[variant].append(options.batch * options.steps / (clock() - start))
    return speeds, memory


def training_step(name: str, variant: Variant, device: torch.device, batch: int) -> Callable[[], None]:
    """A function that runs one training step of a fresh net on one fixed batch."""
    torch.manual_seed(0)
    name, *given = name.split("@")
    channels = inspect.signature(BACKBONES[name]).parameters["in_channels"].default if name in BACKBONES else 3
    options = {key: parse_literal(value, None) for key, _, value in (text.partition("=") for text in given)}
    net = build_backbone(name, gradient_checkpointing=variant.checkpointing, in_channels=channels, **options)
    net = net.to(device)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(batch, channels, *backbone_info(net).image_size, device=device) * 2 - 1
    images = images.contiguous(memory_format=layout)
    gradient = torch.randn(batch, 512, device=device) / batch
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    run = torch.compile(net) if variant.compiled else net

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=variant.bf16):
            embeddings = run(images)
        embeddings.backward(gradient)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def summarize(name: str, speeds: dict[str, list[float]], memory: dict[str, float | None]) -> list[dict[str, Any]]:
    """One row per variant: median speed, (largest - smallest) / median, and the median of the ratios to plain."""
    rows: list[dict[str, Any]] = []
    for variant, values in speeds.items():
        median = statistics.median(values)
        ratios = [value / plain for value, plain in zip(values, speeds[PLAIN], strict=True)]
        rows.append(
            {
                "network": name,
                "variant": variant,
                "images_per_second": median,
                "spread": (max(values) - min(values)) / median,
                "ratio": statistics.median(ratios),
                "memory_mib": memory[variant],
                "rounds_images_per_second": values,
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
