"""Images per second of a whole training run on real records: train.py beside arcface_torch's train_v2.py.

Usage: python -m benchmarks.whole_run [--arcface-torch DIR] [--networks mbf,small] [--rounds 5] [--rec data/faces_small]

Both train in processes of their own, in turn, in float32 with the same number of images, threads and reader processes,
CosFace 64 / 0.4, SGD, clipping to 5, mirrored images; what is measured begins after the warm-up steps.
Ours is `python train.py` as it is; the speed is what it logs itself. Theirs is train_v2.main as it is, with its
PartialFC_V2, losses, net, optimizer, schedule, DistributedDataParallel of one gloo process with fp16 gradients, its
dataset, normalisation and loader. Not theirs: what benchmarks/peer.py replaces (a GPU's calls; where mxnet and
torchvision are not installed, stand-ins that read and decode with less overhead), our net where it has none of that
name ("small"), the marks, and the end after the given steps. Different by design: ours keeps activations channels_last
and normalises in the training process, theirs in the readers. About five minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import RESULTS, ROOT, run_child, save, surroundings, table
from benchmarks.peer import add_peer_option, find_peer
from benchmarks.training_loops import PARTS, config_keys
from sources.records import RecordSource
from utils.images import encode_jpeg
from utils.record_set import write_record_set
from utils.turns import alternate, summarize

OURS, THEIRS = "train.py", "arcface_torch"
_GENERATED_CLASSES = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="mbf,small", help="comma-separated (default: %(default)s)")
    parser.add_argument("--rec", type=Path, default=ROOT / "data" / "faces_small", help="generated where not there")
    parser.add_argument("--batch", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--width", type=int, default=512, help="embedding size (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of a run (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=4, help="of these, not counted (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="reader processes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of whole_run.json")
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    if not 0 < options.warm_up < options.steps:
        parser.error("--warm-up: at least 1 step, and fewer than --steps")
    peer, reason = find_peer(options.arcface_torch)
    context, rows, splits = surroundings(), [], []
    with tempfile.TemporaryDirectory(prefix="whole-run-") as name:
        folder = Path(name)
        data = write_subset(options.rec, folder / "records", options.steps * options.batch)
        options.rec, options.classes = folder / "records", data["classes"]
        for network in options.networks.split(","):
            options.network = network
            measured, parts = measure(options, folder, has_peer=peer is not None)
            rows.append({"network": network, **measured})
            splits += [{"network": network, **part} for part in parts]
            print(f"{network}: {json.dumps(measured)}", flush=True)
    settings = {key: getattr(options, key) for key in ("batch", "width", "steps", "warm_up", "rounds", "workers")}
    markdown = text(rows, splits, settings, data, reason)
    print(markdown)
    content = {**context, "threads": options.threads, **settings, "data": data, "rows": rows, "split": splits}
    content["peer"] = peer.describe() if peer is not None else reason
    print(f"\nwrote {save('whole_run', 'Whole runs', markdown, content, options.out)}")
    return 0


def measure(
    options: argparse.Namespace, folder: Path, *, has_peer: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Speeds of one net by contestant, and one split each."""
    logged: list[dict[str, float]] = []
    theirs: list[dict[str, Any]] = []

    def ours() -> float:
        logged.append(train(options, folder / f"run-{options.network}-{len(logged)}"))
        return logged[-1]["images_per_second"]

    def peer() -> float:
        theirs.append(child("theirs", options))
        return float(theirs[-1]["images_per_second"])

    contestants: Mapping[str, Callable[[], float]] = {OURS: ours, **({THEIRS: peer} if has_peer else {})}
    values = alternate(contestants, options.rounds)
    summary = summarize(values, list(contestants)[-1])
    splits = [{"loop": OURS, **child("ours", options)}]
    splits += [{"loop": THEIRS, **theirs[-1]}] if theirs else []
    found: dict[str, Any] = {
        "images_per_second": {name: own.median for name, own in summary.items()},
        "spread": {name: (own.largest - own.smallest) / own.median for name, own in summary.items()},
        "ratio": summary[OURS].ratio if has_peer else None,
        "data_wait": sorted(run["data_wait"] for run in logged)[len(logged) // 2],
        "rounds_images_per_second": values,
    }
    return found, splits


def train(options: argparse.Namespace, output: Path, device: str = "cpu", **more: Any) -> dict[str, float]:
    """Runs train.py and reads speed and data wait, warm-up left out, from its metrics.jsonl.

    Args:
        options: what `config_keys` needs, steps, warm_up and threads.
        output: of the run; the config is written beside it.
        device: as train.py's.
        more: keys of the config beyond `config_keys`.

    Raises:
        RuntimeError: it failed; the message ends with its last lines.
    """
    keys = {**config_keys(options), "output": str(output), "frequent": options.warm_up, "threads": options.threads}
    keys |= more
    lines = ["from easydict import EasyDict as edict", "config = edict()"]
    lines += [f"config.{key} = {value!r}" for key, value in keys.items()]
    file = output.with_suffix(".py")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "train.py", str(file), "--device", device]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-8:]))
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    readings = [record for record in records if record["kind"] == "train"]
    seconds = waited = 0.0
    for before, reading in pairwise(readings):
        took = (reading["step"] - before["step"]) * options.batch / reading["images_per_second"]
        seconds, waited = seconds + took, waited + took * reading["data_wait"]
    images = (readings[-1]["step"] - readings[0]["step"]) * options.batch
    return {"images_per_second": images / seconds, "data_wait": waited / seconds}


def child(loop: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run of benchmarks/training_loops.py."""
    names = ("rec", "network", "classes", "width", "batch", "steps", "warm_up", "workers")
    arguments = [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    arguments += ["--arcface-torch", str(options.arcface_torch)] if loop == "theirs" else []
    return run_child("benchmarks.training_loops", [loop, *arguments], threads=options.threads, timeout=900)


def write_subset(rec: Path, folder: Path, num_images: int) -> dict[str, Any]:
    """A record set of exactly so many images: every k-th of `rec`, bytes as they are, or generated ones."""
    folder.mkdir()
    images: Iterable[tuple[bytes, str]]
    if (rec / "train.rec").is_file() or rec.is_file():
        source = RecordSource(rec / "train.rec" if rec.is_dir() else rec)
        order = np.argsort(source.reader.labels(source.reader.image_keys), kind="stable")
        keys = source.reader.image_keys[order[np.arange(num_images) * len(order) // num_images]]
        counts = np.bincount(source.reader.labels(keys).astype(np.int64), minlength=source.num_classes)
        size = (source.image_format.height, source.image_format.width)
        images = ((bytes(source.reader.sample(int(key))[1]), f"{key}.jpg") for key in keys)
        name = rec.name
    else:
        counts = np.full(_GENERATED_CLASSES, num_images // _GENERATED_CLASSES)
        counts[: num_images % _GENERATED_CLASSES] += 1
        random = np.random.default_rng(0)
        size, name = (112, 112), "generated"
        images = (
            (encode_jpeg(cv2.resize(random.integers(0, 256, (28, 28, 3), dtype=np.uint8), size)), f"{number}.jpg")
            for number in range(num_images)
        )
    write_record_set(folder, counts.tolist(), images, size)
    return {"name": name, "images": num_images, "classes": len(counts)}


def text(
    rows: Sequence[dict[str, Any]], splits: Sequence[dict[str, Any]], settings: dict[str, Any], data: dict[str, Any],
    reason: str,
) -> str:  # fmt: skip
    """Both tables."""
    speeds = [
        [
            row["network"], *(f"{row['images_per_second'].get(name, float('nan')):.1f}" for name in (OURS, THEIRS)),
            "-" if row["ratio"] is None else f"{row['ratio']:.2f}", f"{row['spread'][OURS]:.0%}",
            f"{row['data_wait']:.1%}",
        ]
        for row in rows
    ]  # fmt: skip
    shares = [
        [f"{row['network']}, {row['loop']}", *(f"{row['parts'][part]:.1%}" for part in PARTS),
         f"{row['peak_bytes'] / 2**20:.0f}"]
        for row in splits
    ]  # fmt: skip
    head = (
        f"{data['images']} images of {data['classes']} identities ({data['name']}), batch {settings['batch']}, "
        f"CosFace, float32, {settings['workers']} readers, {settings['steps'] - settings['warm_up']} steps after "
        f"{settings['warm_up']} of warm-up, {settings['rounds']} rounds in turn; images/s, ratio ours to theirs."
    )
    note = ["", reason] if reason else []
    return "\n".join(
        [
            head, *note, "",
            table(["network", OURS, THEIRS, "ratio", "spread of ours", "data wait of ours"], speeds), "",
            "Where the time of a step goes (one run each, in which ours is driven by training/'s parts; clipping and "
            "checks count as backbone backward, our normalisation of pixels as other):", "",
            table(["", *PARTS, "peak MiB"], shares),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
