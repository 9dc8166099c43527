"""Runs train.py twice as users start it and compares every bit the two leave behind. No tests here.

    python -m tests.training.determinism_runs --pairs 10

The run: synthetic images, a network with batch normalisation and dropout, sampled classes, augmentation, readers in
their own processes, a verification set, checkpoints on the way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader, load

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
rec: synthetic:600:96
network: tiny
embedding_size: 16
dropout: 0.3
head: elasticface_arc
sample_rate: 0.2
augmentation: flip
num_workers: 2
batch_size: 8
num_epoch: 1
lr: 0.05
precision: fp32
frequent: 1
checkpoint_interval: 3
keep_checkpoints: 9
"""
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What a clock, the memory or the disk says, not the training.
MEASURED = {"time", "images_per_second", "data_wait", "memory_bytes", "seconds"}


def run_once(folder: Path, *arguments: str, ranks: int = 1, threads: int = 1, config: Path | None = None) -> Path:
    """One run into `folder`, of CONFIG or of another config; returns the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if config is None:
        config = folder.parent / "same.yaml"
        config.write_text(CONFIG, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    environment |= {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, "train.py", str(config), f"output={folder}", f"threads={threads}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return folder


def differences(one: Path, other: Path) -> list[str]:
    """What two runs do not share: weights, metrics and every tensor of every checkpoint, bit for bit."""
    found = [] if _metrics(one) == _metrics(other) else ["metrics.jsonl"]
    found += _unequal("model.pt", *(torch.load(run / "model.pt", weights_only=True) for run in (one, other)))
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (one, other)]
    if names[0] != names[1] or not names[0]:
        return [*found, f"checkpoints {names}"]
    for name in names[0]:
        found += _unequal(name, *(_tensors(run / "checkpoints" / name) for run in (one, other)))
    return found


def _metrics(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    stored = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in stored.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(tensors, checkpoint_id=checkpoint, no_dist=True)
    return tensors


def _unequal(where: str, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    if one.keys() != other.keys():
        return [f"{where}: names"]
    return [f"{where}: {name}" for name in one if not torch.equal(one[name], other[name])]


def main() -> None:
    """Pairs of runs on 1 and 2 ranks, with and without deterministic=True; prints what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    for ranks, mode in itertools.product((1, 2), ("True", "False")):
        with tempfile.TemporaryDirectory() as name:
            first, unequal = None, 0
            for number in range(options.pairs + 1):
                threads = options.threads[number % len(options.threads)]
                run = run_once(Path(name) / str(number), f"deterministic={mode}", ranks=ranks, threads=threads)
                first = first or run
                found = differences(first, run)
                unequal += bool(found)
                if found:
                    print(f"  run {number}, {threads} threads: {len(found)} differ, first {found[:3]}", flush=True)
            print(f"{ranks} rank(s), deterministic={mode}: {unequal} of {options.pairs} unlike the first", flush=True)


if __name__ == "__main__":
    main()
