"""Made-up run folders with scores for the tests of reports; no tests."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.pair_metrics import PROTOCOLS, PairResult, evaluate_pairs
from eval.pairs import PairSet
from eval.saved_scores import write_scores
from tests.eval.faces import memory_pairs

SHA = "a1" * 32
COMMIT = "c0ffee" + 34 * "0"  # as long as real ones, with no place to break
NUM_PAIRS = 240  # enough different ones for a TAR at FAR 0.1


@cache
def pairs_of_runs() -> PairSet:
    """The set that made-up runs were verified on."""
    names = [f"Somebody_{index // 2}/Somebody_With_A_Name_{index:04d}.jpg" for index in range(2 * NUM_PAIRS)]
    return replace(memory_pairs(NUM_PAIRS), names=names)


def noisy_result(pair_set: PairSet, noise: float, seed: int = 0) -> PairResult:
    """Scores of embeddings of one direction per identity, plus noise: the more of it the more errors."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(len(pair_set.is_same), 16))
    other = np.where(pair_set.is_same[:, None], first, rng.normal(size=first.shape))
    embeddings = np.stack([first, other], axis=1).reshape(-1, 16)
    embeddings = embeddings + noise * rng.normal(size=embeddings.shape)
    return evaluate_pairs(embeddings, pair_set.is_same, num_folds=pair_set.num_folds)


def make_run(folder: Path, name: str = "a run", *, noise: float = 1.0, num_lines: int = 40, **config: Any) -> Path:
    """A finished run with training lines, verifications, results and saved scores of 240 pairs called `memory`."""
    pair_set = pairs_of_runs()
    result = noisy_result(pair_set, noise)
    (folder / "verification").mkdir(parents=True)
    resolved = {
        "name": name, "source": f"configs/{name}.py", "head": "cosface", "network": "small", "rec": "data/x", "seed": 7,
        "head_options": {"scale": 30.0, "margin": 0.2}, "val_targets": ["memory"], "val_dir": "data", **config,
    }  # fmt: skip
    fingerprint = {
        "code": {"commit": COMMIT, "tree_sha256": SHA, "files": {"train.py": "11", "losses/head.py": f"{noise}"}},
        "data": {"kind": "records", "images": 96, "content_sha256": SHA, "verification": {"memory": "0" * 64}},
        "environment": {"torch": "2.13", "threads": 1, "devices": {"a CPU": 2}},
    }
    origin = {"command": f"python train.py configs/{name}", "commit": COMMIT, "ranks": 2, "fingerprint": fingerprint}
    lines: list[dict[str, Any]] = [
        {
            "kind": "train", "time": 1000.0 + step, "step": step, "epoch": 0, "loss": 10 / step, "lr": 0.1,
            "images_per_second": 50.0 + step % 3, "data_wait": 0.01, "target_cosine": 0.5, "grad_norm": 2.0,
            "loss_scale": 1.0, "memory_bytes": 2_000_000_000,
        }
        for step in range(1, num_lines + 1)
    ]  # fmt: skip
    kept = ("accuracy", "accuracy_std", "auc", "eer", "tar_at_far", "protocol")
    numbers = {key: value for key, value in result.to_dict().items() if key in kept}
    for step in (num_lines // 2, num_lines):
        for protocol in PROTOCOLS:
            scored = {"kind": "verification", "step": step, "dataset": "memory", "data_sha256": "0" * 64, "flip": True}
            lines.append({**scored, **numbers, "protocol": protocol})
    saved = {
        "command": f"python -m eval.verification --model {name}", "weights": f"{name}/best.pt", "weights_sha256": SHA,
        "flip": True, "targets": {"memory": {"data_sha256": "0" * 64, "num_pairs": NUM_PAIRS, "num_folds": 10,
        "protocols": {"insightface": result.to_dict()}}},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(resolved))
    (folder / "run.json").write_text(json.dumps(origin))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "verification" / "results.json").write_text(json.dumps(saved))
    write_scores(folder / "verification", "memory", pair_set, result, origin=f"{name}/best.pt")
    return folder
