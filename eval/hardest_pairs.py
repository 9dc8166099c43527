"""The pairs a model gets most wrong: found, told as JSON, and read back trusting nothing. No files here, no HTML."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.pair_metrics import PairResult
from eval.pairs import PairSet
from utils.image_header import image_size
from utils.images import encode_jpeg

KINDS = ("false_accept", "false_reject")
_QUALITY = 80  # of the small JPEGs: 3 to 4 kB a face
_MAX_ERRORS, _MAX_IMAGE_BYTES, _MAX_SIDE, _MAX_TEXT = 200, 1 << 17, 512, 300

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class HardPair:
    """A pair on the wrong side of the threshold.

    Attributes:
        kind: "false_accept" (two people taken for one) or "false_reject" (one taken for two).
        pair: its index in the set, from 0.
        cosine: its score.
        names: what the set calls the two images; empty texts where it has no names.
        images: the two as JPEG bytes.
    """

    kind: str
    pair: int
    cosine: float
    names: tuple[str, str]
    images: tuple[bytes, bytes]


@dataclass(frozen=True)
class HardestPairs:
    """What NAME_hardest.json holds.

    Attributes:
        origin: which weights were scored, in words.
        threshold: cosine; the mean of the folds' thresholds.
        num_errors: by kind, all of them at that threshold, shown or not.
        pairs: the worst first, false accepts before false rejects.
    """

    origin: str
    threshold: float
    num_errors: dict[str, int]
    pairs: tuple[HardPair, ...]


def describe_hardest(pair_set: PairSet, result: PairResult, num_hardest: int, origin: str) -> str:
    """The hardest errors of each kind as JSON, with their images; see `eval.saved_scores.write_scores`.

    Raises:
        PairError: an unreadable image.
    """
    threshold = float(np.mean(result.fold_thresholds))
    errors = _errors(result.scores, pair_set.is_same, threshold)
    num_kept = min(max(num_hardest, 0), _MAX_ERRORS // 2)
    kept = [_describe(kind, int(pair), pair_set, result) for kind, pairs in errors.items() for pair in pairs[:num_kept]]
    document = {
        "origin": origin[:_MAX_TEXT],
        "threshold": threshold,
        "num_errors": {kind: len(pairs) for kind, pairs in errors.items()},
        "pairs": kept,
    }
    return json.dumps(document) + "\n"


def parse_hardest(content: bytes, scores: Scores, is_same: Flags) -> HardestPairs:
    """What `describe_hardest` wrote about these scores.

    Args:
        content: JSON, from anywhere.
        scores: (N,); a pair whose cosine is another one there belongs to other scores.
        is_same: (N,).

    Raises:
        ValueError: anything else; the text says what.
    """
    try:
        document = json.loads(content)
        pairs = tuple(_hard_pair(entry, scores, is_same) for entry in _limited(document["pairs"]))
        threshold = float(document["threshold"])
        counts = {kind: int(document["num_errors"][kind]) for kind in KINDS}
        origin = _text(document.get("origin", ""))
    except (LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not math.isfinite(threshold) or not all(0 <= count <= len(scores) for count in counts.values()):
        raise ValueError("a threshold or a number of errors that cannot be")
    return HardestPairs(origin, threshold, counts, pairs)


def _errors(scores: Scores, is_same: Flags, threshold: float) -> dict[str, NDArray[np.int64]]:
    """Indices of all errors by kind; the worst first, of equals the earlier."""
    wrong = (~is_same & (scores >= threshold), -scores), (is_same & (scores < threshold), scores)
    found = {}
    for kind, (is_wrong, badness) in zip(KINDS, wrong, strict=True):
        indices = np.flatnonzero(is_wrong)
        found[kind] = indices[np.argsort(badness[indices], kind="stable")]
    return found


def _describe(kind: str, pair: int, pair_set: PairSet, result: PairResult) -> dict[str, Any]:
    both = (2 * pair, 2 * pair + 1)
    return {
        "kind": kind,
        "pair": pair,
        "cosine": float(result.scores[pair]),
        "names": [pair_set.names[index][:_MAX_TEXT] for index in both] if len(pair_set.names) else ["", ""],
        "images": [
            base64.b64encode(encode_jpeg(np.asarray(pair_set.images[index]), _QUALITY)).decode("ascii")
            for index in both
        ],
    }


def _limited(entries: Any) -> list[Any]:
    if not isinstance(entries, list) or len(entries) > _MAX_ERRORS:
        raise ValueError(f"pairs is no list of at most {_MAX_ERRORS}")
    return entries


def _hard_pair(entry: Any, scores: Scores, is_same: Flags) -> HardPair:
    kind, pair, cosine = entry["kind"], entry["pair"], entry["cosine"]
    if kind not in KINDS or type(pair) is not int or not 0 <= pair < len(scores) or type(cosine) is not float:
        raise ValueError(f"pair {pair!r:.20} of kind {kind!r:.20} with cosine {cosine!r:.20}")
    if cosine != scores[pair] or bool(is_same[pair]) != (kind == "false_reject"):
        raise ValueError(f"pair {pair} belongs to other scores")
    names, images = ([_text(value, limit) for value in _two(entry[key])] for key, limit in
                     (("names", _MAX_TEXT), ("images", 2 * _MAX_IMAGE_BYTES)))  # fmt: skip
    first, second = (_jpeg(text) for text in images)
    return HardPair(kind, pair, cosine, (names[0], names[1]), (first, second))


def _two(values: Any) -> list[Any]:
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError("a pair has two names and two images")
    return values


def _text(value: Any, limit: int = _MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError(f"expected a text of at most {limit} characters")
    return value.encode("utf-8", "replace").decode()


def _jpeg(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an image is not base64: {error}") from error
    size = image_size(data) if data[:2] == b"\xff\xd8" else None
    if size is None or not 1 <= min(size) <= max(size) <= _MAX_SIDE or len(data) > _MAX_IMAGE_BYTES:
        raise ValueError(f"an image is no JPEG of at most {_MAX_SIDE} pixels a side")
    return data
