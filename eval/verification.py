"""Face verification on pairs: what training calls and `python -m eval.verification`; formulas are next door."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from backbones import WeightsError
from eval.embedder import Embedder, EmbedderError, ModuleEmbedder, evaluating, find_weights, load_embedder
from eval.embedding import embed_pairs
from eval.pair_metrics import FARS, PROTOCOLS, PairResult, VerificationError, evaluate_pairs
from eval.pairs import PairError, PairSet, load_pair_sets
from eval.report import write_report
from eval.saved_scores import write_scores
from eval.verification_options import parse_fars, require_resampling, resample, verification_parser
from eval.verification_tables import (
    csv_text,
    markdown,
    one_kind_folds,
    set_text,
    summaries,
    table_rows,
    target_summary,
    unique_names,
)
from utils.command_line import Outcome, run_command, say
from utils.distributed import RankError, Ranks, start_ranks, stop_ranks
from utils.errors import DataError
from utils.files import sha256_of, write_text_whole
from utils.images import FACE, ImageFormat
from utils.memory import prefer_huge_pages

__all__ = [
    "PairResult",
    "VerificationError",
    "embed_pairs",
    "evaluate_pairs",
    "main",
    "verification_record",
    "verify",
]


def verify(
    model: nn.Module,
    pair_set: PairSet,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    flip: bool = True,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    precision: str = "fp32",
    image_format: ImageFormat = FACE,
    process_group: dist.ProcessGroup | None = None,
) -> list[PairResult]:
    """Score a backbone on a set of pairs; collective: every rank calls it and every rank gets the same results.

    The model is put into eval mode for the time being; every submodule gets its mode back.

    Args:
        model: (B, 3, 112, 112) float -> (B, D), on `device`; may be wrapped for DDP or compiled.
        pair_set: from `eval.pairs.load_pairs`, the same on every rank.
        protocols: one result each, from one pass over the images.
        flip: add the mirrored image's embedding.
        device: where the images go.
        batch_size: images per forward pass on each rank.
        precision: "fp32", "bf16" or "fp16".
        image_format: how the model was taught to see pixels.
        process_group: None is the default group, or no group where none has been started.

    Raises:
        PairError: an unreadable image. VerificationError: embeddings that are not finite.
    """
    embedder = ModuleEmbedder(model, device, precision, image_format=image_format)
    with evaluating(embedder.model):
        return score_pair_set(
            embedder, pair_set, protocols=protocols, flip=flip, batch_size=batch_size, process_group=process_group
        )


def score_pair_set(
    embedder: Embedder,
    pair_set: PairSet,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    fars: Sequence[float] = FARS,
    flip: bool = True,
    batch_size: int = 64,
    process_group: dist.ProcessGroup | None = None,
    progress: bool = False,
) -> list[PairResult]:
    """Embed a set, and the pairs its thresholds are chosen on where it has such, and score it; collective.

    Raises:
        As verify.
    """

    def embedded(pairs: PairSet) -> NDArray[np.float32]:
        return embed_pairs(
            embedder, pairs, batch_size=batch_size, flip=flip, process_group=process_group, progress=progress
        )

    embeddings = embedded(pair_set)
    other = pair_set.development
    development = None if other is None else (embedded(other), other.is_same)
    return [
        evaluate_pairs(
            embeddings,
            pair_set.is_same,
            num_folds=pair_set.num_folds,
            protocol=protocol,
            fars=fars,
            folds=pair_set.folds,
            development=development,
        )
        for protocol in protocols
    ]


def verification_record(result: PairResult, pair_set: PairSet, *, flip: bool, seconds: float) -> dict[str, Any]:
    """A `metrics.jsonl` line of kind "verification"; the caller adds kind, time, step and epoch.

    A set with folds of one kind of pairs says in `folds_of_one_kind` how many; others have no such key.
    """
    numbers = result.to_dict()
    lonely = one_kind_folds(pair_set)
    kept = ("accuracy", "accuracy_std", "auc", "eer", "tar_at_far")
    return {
        "dataset": pair_set.name,
        "protocol": result.protocol,
        "flip": flip,
        **{key: numbers[key] for key in kept},
        "data_sha256": pair_set.data_sha256,
        "seconds": round(seconds, 3),
        **({"folds_of_one_kind": lonely} if lonely else {}),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for anything the user can put right."""
    prefer_huge_pages()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = verification_parser().parse_args(given)
    options.command = shlex.join(["python", "-m", "eval.verification", *given])
    if os.environ.get("RANK", "0") != "0":
        options.json = False  # one object on stdout, not one per rank

    def work() -> Outcome | None:
        ranks = start_ranks(options.device)
        try:
            return _verify_targets(options, ranks)
        finally:
            stop_ranks()

    return run_command(options, work, (DataError, EmbedderError, RankError, VerificationError, WeightsError))


def _verify_targets(options: argparse.Namespace, ranks: Ranks) -> Outcome | None:
    """Embed and score every target; rank 0 prints and writes."""
    fars = parse_fars(options.fars)
    names = [name.strip() for name in options.targets.split(",") if name.strip()]
    # all sets are opened before the first is embedded: a wrong name should not cost an hour
    pair_sets = [pair_set for name in names for pair_set in load_pair_sets(name, options.data)]
    if not pair_sets:
        raise PairError(f"--targets {options.targets!r} names no set")
    require_resampling(options, pair_sets)
    weights = find_weights(options.model, options.checkpoint)
    embedder = load_embedder(weights, network=options.network, device=ranks.device, precision=options.precision)
    out = Path(options.out) if options.out else None
    if out is None and Path(options.model).is_dir():
        out = Path(options.model) / "verification"
    report: dict[str, Any] = {
        "command": options.command,
        "weights": str(weights),
        "weights_sha256": sha256_of(weights),
        "flip": options.flip,
        "precision": options.precision,
        "targets": {},
    }
    if ranks.is_main:
        device = f"flip {'on' if options.flip else 'off'}, {ranks.device}"
        say(options, f"{weights}  sha256 {report['weights_sha256']}\n{device}")
    for name, pair_set in zip(unique_names(pair_sets), pair_sets, strict=True):
        started = time.monotonic()
        results = score_pair_set(
            embedder,
            pair_set,
            fars=fars,
            flip=options.flip,
            batch_size=options.batch_size,
            progress=ranks.is_main and sys.stderr.isatty(),
        )
        seconds = time.monotonic() - started
        if not ranks.is_main:
            continue
        intervals = resample(options, pair_set, results)
        report["targets"][name] = target_summary(pair_set, results, seconds, intervals)
        report.update(summaries(report["targets"]))
        say(options, set_text(name, pair_set, results, seconds, intervals))
        if out is not None:
            _write(out, name, report, pair_set, results[0])
    return _finish(options, report, out) if ranks.is_main else None


def _finish(options: argparse.Namespace, report: dict[str, Any], out: Path | None) -> Outcome:
    """Tables over all sets, and the report of the run."""
    rows = table_rows(report["targets"], summaries(report["targets"]))
    words = [f"\n{markdown(rows)}"] if len(report["targets"]) > 1 else []
    if out is not None:
        write_text_whole(markdown(rows) + "\n", out / "table.md")
        write_text_whole(csv_text(rows), out / "table.csv")
        words.append(f"written: {out / 'results.json'}, table.md, table.csv and plots beside it")
        if (out.parent / "metrics.jsonl").is_file() and out.name == "verification":
            words.append(f"written: {write_report(out.parent)}")
    return Outcome("\n".join(words), report)


def _write(out: Path, name: str, report: dict[str, Any], pair_set: PairSet, result: PairResult) -> None:
    from eval.plots import plot_roc, plot_scores  # matplotlib costs a second to import, on rank 0 only

    out.mkdir(parents=True, exist_ok=True)
    plot_roc(out / f"{name}_roc.png", name, result, pair_set.is_same)
    plot_scores(out / f"{name}_scores.png", name, result, pair_set.is_same)
    write_scores(out, name, pair_set, result, origin=f"{report['weights']}, sha256 {report['weights_sha256'][:16]}")
    write_text_whole(json.dumps(report, indent=2) + "\n", out / "results.json")


if __name__ == "__main__":
    sys.exit(main())
