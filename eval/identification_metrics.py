"""One-to-many search as pure functions: embeddings + labels -> ranks, CMC, TPIR at FPIR; no files, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.roc import MIN_IMPOSTORS_ACCEPTED, accepted_at
from eval.similarity_blocks import (
    TIE,
    Floats,
    GalleryError,
    Indices,
    count_at_least,
    nearest_by_faiss,
    pair_scores,
    rows_of_same_label,
    unit_rows,
)

RANKS = (1, 5, 10)
FPIRS = (0.001, 0.01, 0.1)
BACKENDS = ("auto", "torch", "faiss")
UNKNOWN = -1


@dataclass(frozen=True)
class SearchResult:
    """What a search found for each probe.

    Attributes:
        is_mated: (P,) bool, whether the probe's identity is in the gallery.
        ranks: (P,) int64, place of the best entry of the probe's identity, from 1; 0 for probes without one.
        mate_scores: (P,) float32, that entry's cosine; NaN for probes without one.
        other_scores: (P,) float32, the highest cosine among entries of other identities.
        num_entries: rows of the gallery.
        num_identities: identities in it; entries without a label count as one each.
        rank_limit: ranks above it were not told apart (faiss lists so many); num_entries where all were.
    """

    is_mated: NDArray[np.bool_]
    ranks: Indices
    mate_scores: Floats
    other_scores: Floats
    num_entries: int
    num_identities: int
    rank_limit: int


@dataclass(frozen=True)
class IdentificationResult:
    """Rates of a search, fractions in [0, 1]; None where the numbers do not carry them.

    Attributes:
        rank_rates: by k, the share of mated probes whose rank is at most k; None where the gallery has fewer entries.
        tpir_at_fpir: by FPIR, see `identification_rates`; None without non-mated or mated probes, and where
            `num_non_mated * fpir < 10`.
        threshold_at_fpir: cosines; a candidate at the threshold counts as returned.
    """

    num_entries: int
    num_identities: int
    num_mated: int
    num_non_mated: int
    rank_rates: dict[int, float | None]
    tpir_at_fpir: dict[float, float | None]
    threshold_at_fpir: dict[float, float | None]
    search: SearchResult = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON values, without the search's, which has some per probe."""
        return {
            "num_entries": self.num_entries,
            "num_identities": self.num_identities,
            "num_mated": self.num_mated,
            "num_non_mated": self.num_non_mated,
            "rank_rates": {str(rank): rate for rank, rate in self.rank_rates.items()},
            "tpir_at_fpir": {f"{fpir:g}": rate for fpir, rate in self.tpir_at_fpir.items()},
            "threshold_at_fpir": {f"{fpir:g}": value for fpir, value in self.threshold_at_fpir.items()},
        }


def search(
    probes: NDArray[Any],
    probe_labels: NDArray[Any],
    gallery: NDArray[Any],
    gallery_labels: NDArray[Any],
    *,
    backend: str = "auto",
    max_rank: int = max(RANKS),
    device: torch.device | str = "cpu",
) -> SearchResult:
    """Searches every probe in the gallery by cosine.

    The rank of a mated probe is 1 + the number of entries of other identities whose score is not below that of the best
    entry of its own. Ties are broken against the probe, whatever the order of the entries: scores closer than 1e-6
    are ties, since float32 does not tell them apart, and a network that gives every face one embedding has rank-1 0.

    Args:
        probes: (P, D) real, any length; normalised here.
        probe_labels: (P,) whole numbers, the same numbering as the gallery's; negative: an identity that is not in it.
        gallery: (G, D).
        gallery_labels: (G,); several entries may share one. Negative: a distractor, nobody's mate.
        backend: "torch" counts all entries above the mate; "faiss" lists the nearest with IndexFlatIP and cannot tell
            ranks above `max_rank` apart; "auto" is "torch" (docs/identification.md has the measurement).
        max_rank: the highest rank that is asked for; used by faiss only.
        device: where "torch" makes the products.

    Raises:
        GalleryError: shapes that do not fit, embeddings that are not finite, an unknown backend, or no faiss.
    """
    if backend not in BACKENDS:
        raise GalleryError(f"unknown backend {backend!r}; there are {', '.join(BACKENDS)}")
    probe_labels, gallery_labels = np.asarray(probe_labels, np.int64), np.asarray(gallery_labels, np.int64)
    probes, gallery = unit_rows(np.asarray(probes), "probes"), unit_rows(np.asarray(gallery), "gallery")
    _check(probes, probe_labels, gallery, gallery_labels)
    own = rows_of_same_label(probe_labels, gallery_labels)
    is_mated = own.counts > 0
    entries = len(gallery)
    if backend == "faiss":
        ranks, mate_scores, other_scores = _by_faiss(
            probes, gallery, probe_labels, gallery_labels, own.counts, max_rank
        )
        limit = min(max_rank, entries)
    else:
        mate_scores = np.full(len(probes), np.nan, dtype=np.float32)
        scores = pair_scores(probes, gallery, own.probes, own.rows)
        if len(scores):
            mate_scores[is_mated] = np.maximum.reduceat(scores, own.starts[:-1][is_mated])
        starts = np.concatenate([[0], np.cumsum(is_mated)]).astype(np.int64)
        thresholds = mate_scores[is_mated] - np.float32(TIE)
        counts, other_scores = count_at_least(probes, gallery, own, thresholds, starts, device=device)
        ranks = np.zeros(len(probes), dtype=np.int64)
        ranks[is_mated] = counts + 1
        limit = entries
    known = np.unique(gallery_labels[gallery_labels >= 0])
    num_identities = len(known) + int((gallery_labels < 0).sum())
    return SearchResult(is_mated, ranks, mate_scores, other_scores, entries, num_identities, limit)


def identification_rates(
    found: SearchResult, *, ranks: Sequence[int] = RANKS, fpirs: Sequence[float] = FPIRS
) -> IdentificationResult:
    """Closed-set and open-set rates of a search.

    Closed set: the rank-k rate (CMC) is the share of mated probes with rank <= k. Open set, at a threshold t:

        FPIR(t) = share of non-mated probes with any entry of score >= t
        TPIR(t) = share of mated probes with rank 1 and mate's score >= t    (1 - FNIR; "DIR" at rank 1)

    TPIR at FPIR is not interpolated: t is the loosest threshold whose measured FPIR is not above the one asked for.

    Raises:
        GalleryError: a rank below 1 or above what the search told apart, or an FPIR outside of (0, 1).
    """
    bad = [rank for rank in ranks if rank < 1 or (found.rank_limit < rank <= found.num_entries)]
    if bad or any(not 0 < fpir < 1 for fpir in fpirs):
        raise GalleryError(
            f"ranks must be 1 or more (this search told {found.rank_limit} apart) and FPIRs between 0 and 1; "
            f"got ranks {list(ranks)} and FPIRs {list(fpirs)}"
        )
    mated = found.ranks[found.is_mated]
    rank_rates: dict[int, float | None] = {
        rank: float(np.mean(mated <= rank)) if len(mated) and rank <= found.num_entries else None for rank in ranks
    }
    alarms = np.sort(found.other_scores[~found.is_mated])[::-1]
    hits = found.mate_scores[found.is_mated & (found.ranks == 1)]
    tpirs: dict[float, float | None] = dict.fromkeys(fpirs)
    thresholds: dict[float, float | None] = dict.fromkeys(fpirs)
    for fpir in fpirs:
        allowed = accepted_at(fpir, len(alarms))
        if allowed >= MIN_IMPOSTORS_ACCEPTED and len(mated):
            refused = alarms[allowed]  # the best alarm that must not sound; its equals stay silent with it
            tpirs[fpir] = float(np.sum(hits > refused) / len(mated))
            thresholds[fpir] = float(np.nextafter(refused, np.float32(np.inf)))
    num_mated = len(mated)
    return IdentificationResult(
        found.num_entries,
        found.num_identities,
        num_mated,
        len(found.ranks) - num_mated,
        rank_rates,
        tpirs,
        thresholds,
        found,
    )


def _by_faiss(
    probes: Floats,
    gallery: Floats,
    probe_labels: Indices,
    gallery_labels: Indices,
    own_counts: Indices,
    max_rank: int,
) -> tuple[Indices, Floats, Floats]:
    """Ranks, mates' scores and the others' highest from the nearest entries; ranks stop at max_rank + 1."""
    # so many that at least max_rank of them are others, whatever the number of own entries
    count = min(len(gallery), max_rank + int(own_counts.max(initial=0)))
    scores, rows = nearest_by_faiss(probes, gallery, count)
    is_own = (gallery_labels[rows] == probe_labels[:, None]) & (probe_labels >= 0)[:, None]
    mate = np.where(is_own, scores, -np.inf).max(axis=1).astype(np.float32)
    others = np.where(is_own, -np.inf, scores).astype(np.float32)
    ranks = np.minimum(1 + (others >= mate[:, None] - np.float32(TIE)).sum(axis=1), max_rank + 1)
    ranks[own_counts == 0] = 0
    return ranks.astype(np.int64), np.where(np.isfinite(mate), mate, np.nan).astype(np.float32), others.max(axis=1)


def _check(probes: Floats, probe_labels: Indices, gallery: Floats, gallery_labels: Indices) -> None:
    for what, rows, labels in (("probes", probes, probe_labels), ("gallery", gallery, gallery_labels)):
        if labels.shape != (len(rows),):
            raise GalleryError(f"{what}: {len(rows)} embeddings need as many labels; got shape {labels.shape}")
    if probes.shape[1] != gallery.shape[1]:
        raise GalleryError(
            f"probes have {probes.shape[1]} numbers each and the gallery's entries {gallery.shape[1]}: "
            "they are of different models"
        )
