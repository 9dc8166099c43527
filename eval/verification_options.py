"""Options of the verification command: its parser, and what they mean for a set of pairs. Nothing is embedded here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eval.bootstrap import UNITS, Intervals, bootstrap_intervals
from eval.embedder import CHECKPOINTS
from eval.pair_metrics import FARS, PairResult, VerificationError
from eval.pairs import PairSet
from utils.command_line import command_parser


def verification_parser() -> argparse.ArgumentParser:
    """The parser of `python -m eval.verification`."""
    parser = command_parser(
        "python -m eval.verification",
        "Verify a model on sets of face pairs: accuracy in two protocols, AUC, EER, TAR at FAR, intervals, tables.",
        [
            "python -m eval.verification --model work_dirs/mine --data data --targets lfw",
            "python -m eval.verification --model backbone.pth --data data --targets lfw,cfp_fp,agedb_30,rfw --out out",
            "python -m eval.verification --model model.onnx --data data --targets lfw --bootstrap 1000 "
            "--bootstrap-unit identities",
            "torchrun --nproc_per_node=2 -m eval.verification --model work_dirs/mine --data data --targets lfw --json",
        ],
    )
    parser.add_argument("--model", required=True, help="run folder, model.pt, backbone.pth or model.onnx")
    parser.add_argument("--data", required=True, help="folder with NAME.bin files or NAME/ folders")
    parser.add_argument(
        "--targets",
        required=True,
        help="comma-separated: NAME (lfw, lfw_view1, sllfw, calfw, cplfw, cfp_ff, cfp_fp, agedb_30, agedb_5 .. _20, "
        "xqlfw, rfw, or your own), FILE.bin or IMAGES_DIR:PAIRS.txt; formats and layouts: docs/verification.md",
    )
    parser.add_argument("--out", help="folder for results.json, tables and plots (a run folder: its verification/)")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True, help="add the mirrored image's embedding"
    )
    parser.add_argument("--fars", default=",".join(f"{far:g}" for far in FARS), help="comma-separated; %(default)s")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="resamples for intervals; 0: none")
    parser.add_argument("--bootstrap-unit", choices=UNITS, default="folds", help="what is resampled")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals; %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--batch-size", type=int, default=64, help="images per forward pass on each rank")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--network", help="backbone name, where the weights do not tell")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="which one of a run folder")
    return parser


def parse_fars(text: str, option: str = "--fars") -> tuple[float, ...]:
    """FARs from a comma-separated list, from the largest to the smallest, each once.

    Raises:
        VerificationError: something that is no number between 0 and 1, or nothing at all.
    """
    try:
        fars = sorted({float(word) for word in text.split(",") if word.strip()}, reverse=True)
    except ValueError:
        fars = []
    if not fars or not all(0 < far < 1 for far in fars):
        raise VerificationError(f"{option} {text!r}: needs numbers between 0 and 1, such as 1e-2,1e-3")
    return tuple(fars)


def require_resampling(options: argparse.Namespace, pair_sets: Sequence[PairSet]) -> None:
    """Refuses a bootstrap that a set cannot have, before anything is embedded.

    Raises:
        VerificationError: options out of range; a set with one fold, or whose identities are not known.
    """
    if options.bootstrap < 0 or not 0 < options.confidence < 1:
        raise VerificationError(
            f"--bootstrap must be 0 or more and --confidence between 0 and 1; got {options.bootstrap} and "
            f"{options.confidence}"
        )
    for pair_set in pair_sets if options.bootstrap else ():
        if options.bootstrap_unit == "folds" and pair_set.num_folds < 2:
            raise VerificationError(
                f"{pair_set.name}: has one fold, and resampling it says nothing; use --bootstrap-unit identities"
            )
        known = len(pair_set.identities) > 0 and bool((pair_set.identities >= 0).all())
        if options.bootstrap_unit == "identities" and not known:
            raise VerificationError(
                f"{pair_set.name}: who is on its images is not known (a .bin does not say; lists of LFW, SLLFW, CALFW, "
                "CPLFW, CFP, XQLFW and RFW do); use --bootstrap-unit folds, or the list with its images"
            )


def resample(
    options: argparse.Namespace, pair_set: PairSet, results: Sequence[PairResult]
) -> dict[str, Intervals] | None:
    """The intervals that were asked for, by protocol; None where none were."""
    if not options.bootstrap:
        return None
    return {
        result.protocol: bootstrap_intervals(
            result,
            pair_set.is_same,
            unit=options.bootstrap_unit,
            folds=pair_set.folds,
            identities=pair_set.identities,
            num_resamples=options.bootstrap,
            seed=options.seed,
            confidence=options.confidence,
        )
        for result in results
    }
