"""Cosines of probes and gallery, block by block: counts, maxima, nearest entries; no labels, no rates, no files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import DataError

# Two products of the same unit vectors differ by up to about this with the order in which float32 sums run.
TIE = 1e-6
PROBE_BLOCK, GALLERY_BLOCK = 512, 8192
_PAIR_BLOCK = 8192

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class GalleryError(DataError):
    """Embeddings, lists or options that cannot be searched; the text says what was got and what is allowed."""


@dataclass(frozen=True)
class Ragged:
    """For each probe a list of gallery rows, of any length.

    Attributes:
        starts: (P + 1,) int64; the rows of probe p are `rows[starts[p]:starts[p + 1]]`.
        rows: (M,) int64, ascending for each probe.
    """

    starts: Indices
    rows: Indices

    @property
    def counts(self) -> Indices:
        """Rows per probe, (P,)."""
        return np.diff(self.starts)

    @property
    def probes(self) -> Indices:
        """The probe of each of `rows`, (M,)."""
        return np.repeat(np.arange(len(self.starts) - 1), self.counts)

    def keep(self, wanted: NDArray[np.bool_]) -> Ragged:
        """The lists without the entries where `wanted` (M,) is False."""
        counts = np.bincount(self.probes[wanted], minlength=len(self.starts) - 1)
        return Ragged(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), self.rows[wanted])


def rows_of_same_label(probe_labels: Indices, gallery_labels: Indices) -> Ragged:
    """For each probe the gallery rows with its label; none where the label is negative (unknown)."""
    order = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[order]
    first = np.searchsorted(ordered, probe_labels, side="left")
    counts = np.searchsorted(ordered, probe_labels, side="right") - first
    counts[probe_labels < 0] = 0
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    places = np.arange(starts[-1]) - np.repeat(starts[:-1] - first, counts)
    return Ragged(starts, order[places].astype(np.int64))


def unit_rows(embeddings: NDArray[Any], what: str) -> Floats:
    """A float32 copy with rows of length 1; a zero row stays zero, its cosines are 0.

    Args:
        embeddings: (N, D) real.
        what: for the error, "gallery".

    Raises:
        GalleryError: another shape, no rows, or values that are not finite (their number is named).
    """
    if embeddings.ndim != 2 or not embeddings.size:
        raise GalleryError(f"{what}: embeddings must be (N, D), with one row or more; got shape {embeddings.shape}")
    rows = np.array(embeddings, dtype=np.float32, order="C")
    num_bad = 0
    for start in range(0, len(rows), _PAIR_BLOCK):  # float64 of everything would be twice the rows
        block = rows[start : start + _PAIR_BLOCK].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        num_bad += int((~np.isfinite(norms)).sum())
        rows[start : start + _PAIR_BLOCK] = block / np.where((norms > 0) & np.isfinite(norms), norms, 1.0)[:, None]
    if num_bad:
        raise GalleryError(
            f"{what}: {num_bad} of {len(rows)} embeddings hold NaN or infinity; the model has diverged or its weights "
            "are damaged: try an earlier checkpoint, or fp32 if this was a reduced precision"
        )
    return rows


def pair_scores(first: Floats, second: Floats, first_rows: Indices, second_rows: Indices) -> Floats:
    """Products of listed pairs of rows, (M,) float32, summed in float64."""
    scores = np.empty(len(first_rows), dtype=np.float32)
    for start in range(0, len(scores), _PAIR_BLOCK):
        block = slice(start, start + _PAIR_BLOCK)
        left, right = first[first_rows[block]], second[second_rows[block]]
        scores[block] = np.einsum("ij,ij->i", left, right, dtype=np.float64)
    return scores


def count_at_least(
    probes: Floats,
    gallery: Floats,
    left_out: Ragged,
    thresholds: Floats,
    starts: Indices,
    *,
    device: torch.device | str = "cpu",
) -> tuple[Indices, Floats]:
    """How many gallery rows reach each of a probe's thresholds, and each probe's highest score.

    Never holds more than one block of scores: beside the embeddings `PROBE_BLOCK * GALLERY_BLOCK * 4` bytes (17 MB)
    with one threshold a probe, about five times that with several.

    Args:
        probes: (P, D), rows of length 1.
        gallery: (G, D), likewise.
        left_out: for each probe the rows that count nowhere.
        thresholds: (T,); those of probe p are `thresholds[starts[p]:starts[p + 1]]`, ascending.
        starts: (P + 1,).
        device: where products are made.

    Returns:
        counts (T,) int64 of rows with score >= threshold, and (P,) the highest score of the rows that count; -inf where
        none does.
    """
    counts = np.zeros(len(thresholds), dtype=np.int64)
    highest = np.full(len(probes), -np.inf, dtype=np.float32)
    there = torch.from_numpy(gallery).to(device)
    # one for all blocks: another would be made while the last is still held
    buffer = torch.empty(min(PROBE_BLOCK, len(probes)) * min(GALLERY_BLOCK, len(gallery)), device=device)
    for low in range(0, len(probes), PROBE_BLOCK):
        high = min(low + PROBE_BLOCK, len(probes))
        padded, filled = _padded(thresholds, starts[low : high + 1])
        limits = torch.from_numpy(padded).to(device)
        found = torch.zeros(limits.shape, dtype=torch.int64, device=device)
        best = torch.full((high - low,), -torch.inf, device=device)
        for scores in _score_blocks(torch.from_numpy(probes[low:high]).to(device), there, left_out, low, buffer):
            best = torch.maximum(best, scores.amax(dim=1))
            found += _at_least(scores, limits)
        counts[starts[low] : starts[high]] = found.cpu().numpy()[filled]
        highest[low:high] = best.cpu().numpy()
    return counts, highest


def nearest_by_faiss(probes: Floats, gallery: Floats, count: int) -> tuple[Floats, Indices]:
    """The `count` gallery rows of the highest score for each probe: scores (P, count), descending, and rows; exact.

    Raises:
        GalleryError: faiss is not installed.
    """
    if not has_faiss():
        raise GalleryError("faiss is not installed: pip install faiss-cpu, or take --backend torch")
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    scores = np.empty((len(probes), count), dtype=np.float32)
    rows = np.empty((len(probes), count), dtype=np.int64)
    index.search(probes, count, D=scores, I=rows)
    return scores, rows


def has_faiss() -> bool:
    """Whether faiss can be imported."""
    return importlib.util.find_spec("faiss") is not None


def _score_blocks(
    probes: Tensor, gallery: Tensor, left_out: Ragged, first_probe: int, buffer: Tensor
) -> Iterator[Tensor]:
    """Scores (B, GALLERY_BLOCK) of one block of probes with one block of the gallery after the other, in the buffer."""
    begin, end = left_out.starts[first_probe], left_out.starts[first_probe + len(probes)]
    out_rows = left_out.rows[begin:end]
    out_probes = np.repeat(np.arange(len(probes)), left_out.counts[first_probe : first_probe + len(probes)])
    for start in range(0, len(gallery), GALLERY_BLOCK):
        block = gallery[start : start + GALLERY_BLOCK]
        scores = buffer[: len(probes) * len(block)].view(len(probes), len(block))
        torch.mm(probes, block.T, out=scores)
        here = (out_rows >= start) & (out_rows < start + len(block))
        places = (torch.from_numpy(out_probes[here]), torch.from_numpy(out_rows[here] - start))
        scores[tuple(place.to(scores.device) for place in places)] = -torch.inf
        yield scores


def _padded(thresholds: Floats, starts: Indices) -> tuple[Floats, NDArray[np.bool_]]:
    """The thresholds of a block of probes as (B, most), +inf where a probe has fewer, and where they are."""
    sizes = np.diff(starts)
    filled = np.arange(max(1, int(sizes.max(initial=0)))) < sizes[:, None]
    padded = np.full(filled.shape, np.inf, dtype=np.float32)
    padded[filled] = thresholds[starts[0] : starts[-1]]
    return padded, filled


def _at_least(scores: Tensor, limits: Tensor) -> Tensor:
    """How many of each row's scores reach each of the row's ascending limits: (B, G), (B, T) -> (B, T) int64.

    The scores are overwritten.
    """
    if limits.shape[1] == 1:  # in place and as floats: summing bools would make int64 of them first
        return scores.ge_(limits).sum(dim=1, keepdim=True).long()
    reached = torch.searchsorted(limits, scores, right=True, out_int32=True)  # how many limits each score reaches
    width = limits.shape[1] + 1
    reached += torch.arange(len(scores), dtype=torch.int32, device=scores.device)[:, None] * width
    histogram = torch.bincount(reached.flatten(), minlength=len(scores) * width).view(len(scores), width)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]
