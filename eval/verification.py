"""Face verification on pairs: what training calls and `python -m eval.verification`; formulas are next door."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from backbones import WeightsError
from eval.embedder import CHECKPOINTS, EmbedderError, ModuleEmbedder, evaluating, find_weights, load_embedder
from eval.embedding import embed_pairs
from eval.pair_metrics import PROTOCOLS, PairResult, VerificationError, evaluate_pairs
from eval.pairs import PairError, PairSet, load_pairs
from eval.report import write_report
from utils.distributed import RankError, Ranks, start_ranks, stop_ranks
from utils.errors import DataError
from utils.files import write_text_whole
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
        process_group: None is the default group, or no group where none has been started.

    Raises:
        PairError: an unreadable image. VerificationError: embeddings that are not finite.
    """
    embedder = ModuleEmbedder(model, device, precision)
    with evaluating(embedder.model):
        embeddings = embed_pairs(embedder, pair_set, batch_size=batch_size, flip=flip, process_group=process_group)
    return [
        evaluate_pairs(embeddings, pair_set.is_same, num_folds=pair_set.num_folds, protocol=protocol)
        for protocol in protocols
    ]


def verification_record(result: PairResult, pair_set: PairSet, *, flip: bool, seconds: float) -> dict[str, Any]:
    """A `metrics.jsonl` line of kind "verification"; the caller adds kind, time, step and epoch."""
    numbers = result.to_dict()
    kept = ("accuracy", "accuracy_std", "auc", "eer", "tar_at_far")
    return {
        "dataset": pair_set.name,
        "protocol": result.protocol,
        "flip": flip,
        **{key: numbers[key] for key in kept},
        "data_sha256": pair_set.data_sha256,
        "seconds": round(seconds, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for anything the user can put right."""
    prefer_huge_pages()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command = shlex.join(["python", "-m", "eval.verification", *given])
    try:
        ranks = start_ranks(options.device)
        try:
            _verify_targets(options, ranks)
        finally:
            stop_ranks()
    except (DataError, EmbedderError, RankError, VerificationError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.verification",
        description="Verify a model on sets of face pairs: accuracy in two protocols, AUC, EER, TAR at FAR.",
    )
    parser.add_argument("--model", required=True, help="run folder, model.pt, backbone.pth or model.onnx")
    parser.add_argument("--data", required=True, help="folder with NAME.bin files or NAME/images + NAME/pairs.txt")
    parser.add_argument("--targets", required=True, help="comma-separated: NAME, FILE.bin or IMAGES_DIR:PAIRS.txt")
    parser.add_argument("--out", help="folder for results.json and plots (a run folder: its verification/)")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True, help="add the mirrored image's embedding"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images per forward pass on each rank")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--network", help="backbone name, where the weights do not tell")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="which one of a run folder")
    return parser


def _verify_targets(options: argparse.Namespace, ranks: Ranks) -> None:
    """Embed and score every target; rank 0 prints and writes."""
    names = [name.strip() for name in options.targets.split(",") if name.strip()]
    # all sets are opened before the first is embedded: a wrong name should not cost an hour
    pair_sets = [load_pairs(name, options.data) for name in names]
    if not pair_sets:
        raise PairError(f"--targets {options.targets!r} names no set")
    weights = find_weights(options.model, options.checkpoint)
    embedder = load_embedder(weights, network=options.network, device=ranks.device, precision=options.precision)
    out = Path(options.out) if options.out else None
    if out is None and Path(options.model).is_dir():
        out = Path(options.model) / "verification"
    report: dict[str, Any] = {
        "command": options.command,
        "weights": str(weights),
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "flip": options.flip,
        "precision": options.precision,
        "targets": {},
    }
    if ranks.is_main:
        print(f"{weights}  sha256 {report['weights_sha256']}\nflip {'on' if options.flip else 'off'}, {ranks.device}")
    for name, pair_set in zip(_unique_names(pair_sets), pair_sets, strict=True):
        started = time.monotonic()
        embeddings = embed_pairs(
            embedder,
            pair_set,
            batch_size=options.batch_size,
            flip=options.flip,
            progress=ranks.is_main and sys.stderr.isatty(),
        )
        results = [
            evaluate_pairs(embeddings, pair_set.is_same, num_folds=pair_set.num_folds, protocol=protocol)
            for protocol in PROTOCOLS
        ]
        seconds = time.monotonic() - started
        report["targets"][name] = _summary(pair_set, results, seconds)
        if ranks.is_main:
            print(_table(name, pair_set, results, seconds), flush=True)
            if out is not None:
                _write(out, name, report, pair_set, results[0])
    if ranks.is_main and out is not None:
        print(f"written: {out / 'results.json'} and plots beside it")
        if (out.parent / "metrics.jsonl").is_file() and out.name == "verification":
            print(f"written: {write_report(out.parent)}")


def _unique_names(pair_sets: Sequence[PairSet]) -> list[str]:
    """Names for files and tables; a second set of one name gets a number, so that no result replaces another."""
    names: list[str] = []
    for pair_set in pair_sets:
        count = sum(name == pair_set.name or name.startswith(f"{pair_set.name}-") for name in names)
        names.append(f"{pair_set.name}-{count + 1}" if count else pair_set.name)
    return names


def _summary(pair_set: PairSet, results: Sequence[PairResult], seconds: float) -> dict[str, Any]:
    return {
        "data_sha256": pair_set.data_sha256,
        "num_pairs": len(pair_set.is_same),
        "num_folds": pair_set.num_folds,
        "seconds": round(seconds, 3),
        "protocols": {result.protocol: result.to_dict() for result in results},
    }


def _table(name: str, pair_set: PairSet, results: Sequence[PairResult], seconds: float) -> str:
    first = results[0]
    lines = [
        f"\n{name}: {first.num_same} same + {first.num_different} different pairs, {pair_set.num_folds} folds, "
        f"{seconds:.1f} s",
        f"  sha256 {pair_set.data_sha256}",
    ]
    for result in results:
        lines.append(f"  accuracy ({result.protocol:<11}) {result.accuracy:8.2%} +- {result.accuracy_std:.2%}")
    lines.append(f"  AUC {_percent(first.auc, 3)}   EER {_percent(first.eer, 2)}")
    for far, tar in first.tar_at_far.items():
        why = "" if tar is not None else f" (needs {10 / far:.0f} different pairs)"
        lines.append(f"  TAR at FAR {far:<7g} {_percent(tar, 2)}{why}")
    return "\n".join(lines)


def _percent(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}%}"


def _write(out: Path, name: str, report: dict[str, Any], pair_set: PairSet, result: PairResult) -> None:
    from eval.plots import plot_roc, plot_scores  # matplotlib costs a second to import, on rank 0 only

    out.mkdir(parents=True, exist_ok=True)
    plot_roc(out / f"{name}_roc.png", name, result, pair_set.is_same)
    plot_scores(out / f"{name}_scores.png", name, result, pair_set.is_same)
    write_text_whole(json.dumps(report, indent=2) + "\n", out / "results.json")


if __name__ == "__main__":
    sys.exit(main())
