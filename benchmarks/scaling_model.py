"""Training speed on 8 .. 1024 devices and 1 .. 100 million identities, on paper; and what the paper is checked against.

Usage: python -m benchmarks.scaling_model [--network r50] [--batch 128] [--measure] [--out FOLDER]

Three tables: the prediction for a cluster whose constants are stated, arcface_torch's published V100 speeds against the
same form, and with --measure real steps on 1, 2 and 3 gloo ranks against the formulas (about a minute on two idle
cores). docs/scaling.md says what follows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, save, surroundings, table
from benchmarks.scaling_formulas import (
    H200,
    Backbone,
    Hardware,
    Setting,
    backbone_cost,
    collectives,
    device_bytes,
    step_seconds,
)
from benchmarks.scaling_measure import Checked, check, measure
from benchmarks.scaling_published import Row, compare, fit

WORLD_SIZES = (8, 64, 256, 1024)
IDENTITIES = (1_000_000, 10_000_000, 30_000_000, 100_000_000)
RATES = (1.0, 0.1)
TOY = ((20_000, 1.0), (60_000, 1.0), (120_000, 1.0), (120_000, 0.1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, check, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling_model", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--network", default="r50", help="backbone of the prediction (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images per rank (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help="also run 1, 2 and 3 gloo ranks here")
    parser.add_argument("--steps", type=int, default=15, help="timed steps a setting (default: %(default)s)")
    parser.add_argument("--toy", type=toy_settings, default=TOY, help="CLASSES:RATE,... that are measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of scaling_model.json")
    options = parser.parse_args(arguments)
    net = backbone_cost(options.network)
    rows = predictions(net, options.batch, H200)
    published, found = compare(fitted := fit()), []
    if options.measure:
        found = check(measure((1, 2, 3), options.toy, options.steps))
    lines = [*prediction_text(rows, options, net), "", *published_text(published), "", *measured_text(found)]
    print(markdown := "\n".join(lines))
    data: dict[str, Any] = {
        **surroundings(),
        "hardware_model": asdict(H200),
        "predictions": rows,
        "published": {"fit": asdict(fitted), "rows": [{**asdict(row), "error": row.error} for row in published]},
        "measured": [{**asdict(row), "error": row.error, "is_exact": row.is_exact} for row in found],
    }
    print(f"\nwrote {save('scaling_model', 'Scaling, on paper', markdown, data, options.out)}")
    return 0


def toy_settings(text: str) -> list[tuple[int, float]]:
    """`20000:1,120000:.1` -> pairs; needs two class counts at rate 1, which the constants are fitted to."""
    pairs = [(int(classes), float(rate)) for classes, _, rate in (item.partition(":") for item in text.split(","))]
    if len({classes for classes, rate in pairs if rate == 1}) < 2:
        raise argparse.ArgumentTypeError("two class counts at rate 1 are needed to fit the constants")
    return pairs


def predictions(net: Backbone, batch: int, hardware: Hardware) -> list[dict[str, Any]]:
    """One row per setting: images a second of all devices, memory of one, the seconds by part, what is sent."""
    rows: list[dict[str, Any]] = []
    for num_classes in IDENTITIES:
        for world_size in WORLD_SIZES:
            for rate in RATES:
                setting = Setting(world_size, num_classes, batch, rate)
                parts = step_seconds(setting, net, hardware)
                sent = sum(item.sent(world_size) for item in collectives(setting, net.parameters))
                rows.append(
                    {
                        **asdict(setting),
                        "active_share": setting.active_classes / setting.local_classes,
                        "images_per_second": setting.global_batch / sum(parts.values()),
                        "efficiency": parts["backbone"] / sum(parts.values()),
                        "bytes": device_bytes(setting, net),
                        "sent": sent,
                        "seconds": parts,
                    }
                )
    return rows


def prediction_text(rows: Sequence[dict[str, Any]], options: argparse.Namespace, net: Backbone) -> list[str]:
    """The table of the prediction, and where its constants come from."""
    body = []
    for row in rows:
        costs = {part: value for part, value in row["seconds"].items() if part != "backbone"}
        worst = max(costs, key=lambda part: costs[part])
        body.append(
            [
                f"{row['num_classes'] / 1e6:g} M", f"{row['world_size']}", f"{row['sample_rate']:g}",
                f"{row['active_share']:.0%}", f"{row['images_per_second'] / 1e3:,.0f} k", f"{row['efficiency']:.0%}",
                f"{row['bytes'] / 1e9:.1f}", f"{row['sent'] / 1e6:,.0f}", worst,
            ]
        )  # fmt: skip
    heads = ["identities", "GPUs", "sample_rate", "classes in a step", "images/s", "in the backbone", "GB", "MB sent",
             "largest other part"]  # fmt: skip
    return [
        f"**Prediction, not a measurement.** {options.network} ({net.flops / 1e9:.1f} GFLOP an image forward, "
        f"{net.parameters / 1e6:.1f} M parameters), {options.batch} images a GPU, {H200.name}; assumed to be reached: "
        f"{H200.backbone_rate / 1e12:.0f} TFLOP/s in the backbone, {H200.product_rate / 1e12:.0f} in products, "
        f"{H200.traffic_rate / 1e12:g} TB/s of memory, {H200.node_rate / 1e9:.0f} GB/s within a node, "
        f"{H200.network_rate / 1e9:.0f} between nodes. Memory and sent bytes are a GPU's, activations not counted.",
        "",
        table(heads, body),
    ]


def published_text(rows: Sequence[Row]) -> list[str]:
    """The V100 table beside its model."""
    body = [
        [f"{row.identities:,}", "model parallel" if row.sample_rate == 1 else f"partial FC {row.sample_rate:g}",
         f"{row.published:,.0f}", f"{row.model:,.0f}", f"{row.error:+.1%}", "fitted" if row.is_fitted else "predicted"]
        for row in rows
    ]  # fmt: skip
    unseen = max(abs(row.error) for row in rows if not row.is_fitted)
    return [
        f"arcface_torch on 8 V100, as published, beside the same form with three fitted constants. Largest error of a "
        f"row that was not fitted: {unseen:.1%}.",
        "",
        table(["identities", "", "images/s", "model", "error", ""], body),
    ]


def measured_text(found: Sequence[Checked]) -> list[str]:
    """Real ranks beside the formulas."""
    if not found:
        return ["Ranks on this machine: not run (`--measure`)."]
    body = []
    for row in found:
        setting, sent = row.measured.setting, sum(size for _, size in row.measured.sent)
        kind = "fitted" if row.is_fitted else f"{row.error:+.0%}"
        body.append(
            [
                str(setting.world_size), f"{setting.num_classes:,}", f"{setting.sample_rate:g}", f"{sent:,}",
                "as predicted" if row.is_exact else "NOT as predicted", f"{row.measured.seconds * 1e3:.1f}",
                f"{row.predicted * 1e3:.1f}", kind,
            ]
        )  # fmt: skip
    return [
        "Real steps of train.py's loop on gloo ranks here, one thread each; two constants fitted on one rank, latency "
        "and rate of the link measured by themselves. Bytes are those of the tensors handed to collectives.",
        "",
        table(["ranks", "classes", "sample_rate", "bytes", "", "ms a step", "model", "error"], body),
    ]


if __name__ == "__main__":
    sys.exit(main())
