"""`python -m eval.operating_point`: the threshold for a wanted FAR, from verified pairs or from embeddings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.embedding_set import SUFFIXES, UNKNOWN, load_embedding_set
from eval.pair_metrics import VerificationError
from eval.thresholds import OperatingPoint, OperatingPointError, points_of_embeddings, require_impostors
from eval.verification_options import parse_fars
from utils.command_line import Outcome, command_parser, run_command
from utils.errors import DataError

_MAX_RESULTS_BYTES = 1 << 26


def points_of_results(path: Path, fars: Sequence[float], target: str | None) -> list[OperatingPoint]:
    """The operating points that verification wrote into results.json.

    Raises:
        OperatingPointError: no such file, not what verification writes, a FAR that is not there and why.
    """
    targets = _read_targets(path)
    if target is not None and target not in targets:
        raise OperatingPointError(f"{path}: holds no set {target!r}; there are {', '.join(targets)}")
    points = []
    for name in targets if target is None else [target]:
        known = targets[name].get("operating_points")
        protocols = targets[name].get("protocols")
        if not isinstance(known, dict) or not isinstance(protocols, dict):
            raise OperatingPointError(f"{path}: {name} has no operating points; verify the model again")
        for far in fars:
            first = next(iter(protocols.values()), None)
            pairs = first if isinstance(first, dict) else {}
            num_different = pairs.get("num_different")
            if isinstance(num_different, int):
                require_impostors(far, num_different, name)
            if pairs.get("num_same") == 0:
                raise OperatingPointError(
                    f"{path}: {name} has no same pairs, so verification measured no TAR and kept no threshold. Verify "
                    "on a set with both kinds of pairs, or give labelled embeddings (.npz, .parquet)"
                )
            if f"{far:g}" not in known:
                raise OperatingPointError(
                    f"{path}: {name} was not measured at FAR {far:g}; there are {', '.join(known) or 'none'}. Verify "
                    f"again with --fars {far:g}"
                )
            points.append(_parse(path, name, known[f"{far:g}"]))
    return points


def _read_targets(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_RESULTS_BYTES + 1)
        targets = json.loads(content)["targets"] if len(content) <= _MAX_RESULTS_BYTES else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OperatingPointError(f"{path}: not the results.json that eval.verification writes: {error}") from None
    if not isinstance(targets, dict) or not targets or not all(isinstance(item, dict) for item in targets.values()):
        raise OperatingPointError(f"{path}: not the results.json that eval.verification writes: it names no sets")
    return targets


def _parse(path: Path, name: str, found: Any) -> OperatingPoint:
    integers = ("num_accepted", "num_different", "num_same")
    numbers = ("wanted_far", "threshold", "far", "far_upper", "confidence", "tar", *integers)
    sound = isinstance(found, Mapping) and all(
        isinstance(found.get(key), int if key in integers else (int, float)) and not isinstance(found.get(key), bool)
        for key in numbers
    )
    if not sound:
        raise OperatingPointError(f"{path}: the operating points of {name} are damaged; verify the model again")
    return OperatingPoint(far_upper_identities=None, source=name, **{key: found[key] for key in numbers})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_parser(
        "python -m eval.operating_point",
        "The threshold to use in production for a wanted FAR, and what is known of the FAR there.",
        [
            "python -m eval.operating_point work_dirs/mine --far 1e-2",
            "python -m eval.operating_point work_dirs/mine/verification/results.json --target lfw --far 1e-2 --json",
            "python -m eval.operating_point embeddings.npz --far 1e-4,1e-5",
        ],
    )
    parser.add_argument(
        "source", help="run folder or results.json (verified sets of pairs), or labelled embeddings (.npz, .parquet)"
    )
    parser.add_argument("--far", required=True, help="wanted FARs, comma-separated, such as 1e-3 or 1e-3,1e-4")
    parser.add_argument("--target", help="of results: this set only")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the bounds of embeddings; %(default)s")
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _run(options), (DataError, VerificationError))


def _run(options: argparse.Namespace) -> Outcome:
    fars = parse_fars(options.far, option="--far")
    if not 0 < options.confidence < 1:
        raise OperatingPointError(f"--confidence must lie between 0 and 1; got {options.confidence}")
    path = Path(options.source)
    if path.suffix in SUFFIXES:
        points = _of_file(path, fars, options.confidence)
    else:
        places = (path / "verification" / "results.json", path / "results.json") if path.is_dir() else (path,)
        points = points_of_results(next((p for p in places if p.is_file()), places[0]), fars, options.target)
    return Outcome("\n".join(_words(point) for point in points), {"points": [asdict(point) for point in points]})


def _of_file(path: Path, fars: Sequence[float], confidence: float) -> list[OperatingPoint]:
    embedding_set = load_embedding_set(path)
    known = embedding_set.labels != UNKNOWN
    if known.sum() < 2:
        raise OperatingPointError(f"{path}: {int(known.sum())} of {len(known)} embeddings have an identity")
    source = f"all pairs of {int(known.sum())} embeddings of {path.name}"
    return points_of_embeddings(embedding_set.embeddings[known], embedding_set.labels[known], fars, source, confidence)


def _words(point: OperatingPoint) -> str:
    bound = f"at most {point.far_upper:.2e} with {point.confidence:.0%} confidence if pairs were independent"
    if point.far_upper_identities is not None:
        bound += f", {point.far_upper_identities:.2e} over other people"
    return (
        f"FAR {point.wanted_far:g}, {point.source}: threshold {point.threshold:.6f} (cosine, same at or above)\n"
        f"  FAR {point.far:.2e} measured ({point.num_accepted:,} of {point.num_different:,} different pairs), {bound}\n"
        f"  {_tar_words(point)}"
    )


def _tar_words(point: OperatingPoint) -> str:
    if point.tar is None:
        return "TAR cannot be measured: there are no same pairs, no identity has two embeddings"
    return f"TAR {point.tar:.2%} of {point.num_same:,} same pairs"


if __name__ == "__main__":
    sys.exit(main())
