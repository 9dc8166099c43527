"""Retrieval as re-identification scores it: embeddings + identities + cameras -> mAP and CMC; no files, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.similarity_blocks import (
    TIE,
    Floats,
    GalleryError,
    Indices,
    Ragged,
    count_at_least,
    pair_scores,
    rows_of_same_label,
    unit_rows,
)

RANKS = (1, 5, 10, 20)
JUNK, DISTRACTOR = -1, -2


@dataclass(frozen=True)
class RetrievalResult:
    """Rates of a retrieval, fractions in [0, 1].

    Attributes:
        mean_ap: mean over the queries of the precisions at their hits (torchreid, most papers of today).
        mean_ap_trapezoid: mean over the queries of the area under precision over recall by trapezoids (the code of
            Market-1501's and of TinyFace's authors).
        rank_rates: by k, the share of queries whose first hit has a rank of at most k; None beyond the gallery.
        num_queries: that were scored.
        num_unanswerable: queries without a match in the gallery; they are in no mean.
        num_entries: of the gallery, without junk.
        num_junk: entries that were left out for every query.
        average_precisions: (num_queries,) float64, by hits, in the order of the queries.
        first_ranks: (num_queries,) int64.
    """

    mean_ap: float
    mean_ap_trapezoid: float
    rank_rates: dict[int, float | None]
    num_queries: int
    num_unanswerable: int
    num_entries: int
    num_junk: int
    average_precisions: NDArray[np.float64] = field(repr=False, compare=False)
    first_ranks: Indices = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON values, without those that each query has."""
        return {
            "mean_ap": self.mean_ap,
            "mean_ap_trapezoid": self.mean_ap_trapezoid,
            "rank_rates": {str(rank): rate for rank, rate in self.rank_rates.items()},
            "num_queries": self.num_queries,
            "num_unanswerable": self.num_unanswerable,
            "num_entries": self.num_entries,
            "num_junk": self.num_junk,
        }


def retrieve(
    queries: NDArray[Any],
    query_labels: NDArray[Any],
    gallery: NDArray[Any],
    gallery_labels: NDArray[Any],
    *,
    query_cameras: NDArray[Any] | None = None,
    gallery_cameras: NDArray[Any] | None = None,
    ranks: Sequence[int] = RANKS,
    device: torch.device | str = "cpu",
) -> RetrievalResult:
    """Ranks the gallery by cosine for every query and averages precision.

    With hits at the ranks r_1 < ... < r_m (from 1) of a list without the entries that do not count:

        AP           = 1/m sum_j  j / r_j
        AP trapezoid = 1/m sum_j (j / r_j + p_j) / 2,   p_j = (j - 1) / (r_j - 1), the precision one rank earlier,
                                                        1 where r_j = 1

    For a query do not count: junk, and with cameras its own identity under its own camera. An entry of another identity
    that ties with a hit stands before it (see `eval.identification_metrics.search`).

    Source of the trapezoids: compute_AP in the evaluation code that the authors of Market-1501 (Zheng et al., Scalable
    Person Re-identification, ICCV 2015) and of TinyFace (Cheng et al., Low-Resolution Face Recognition, ACCV 2018)
    gave out; it follows compute_ap.cpp of the Oxford Buildings data. The exclusions are Market-1501's.

    Args:
        queries: (Q, D) real, any length; normalised here.
        query_labels: (Q,) whole numbers, 0 or more.
        gallery: (G, D).
        gallery_labels: (G,); JUNK (-1) is left out for every query, DISTRACTOR (-2) is nobody's match.
        query_cameras: (Q,) whole numbers; None: no rule about cameras.
        gallery_cameras: (G,), given with the queries'.
        ranks: k of the rates, 1 or more.
        device: where products are made.

    Raises:
        GalleryError: shapes that do not fit, embeddings that are not finite, or no query with a match.
    """
    query_labels, gallery_labels = np.asarray(query_labels, np.int64), np.asarray(gallery_labels, np.int64)
    _check(queries, query_labels, gallery, gallery_labels, query_cameras, gallery_cameras, ranks)
    counted = gallery_labels != JUNK
    labels = gallery_labels[counted]
    if not len(labels):
        raise GalleryError(f"gallery: all {len(counted)} entries are junk")
    query_rows = unit_rows(np.asarray(queries), "queries")
    gallery_rows = unit_rows(np.asarray(gallery) if counted.all() else np.asarray(gallery)[counted], "gallery")
    own = rows_of_same_label(query_labels, labels)
    hits = own
    if query_cameras is not None and gallery_cameras is not None:
        cameras = np.asarray(gallery_cameras)[counted]
        hits = own.keep(cameras[own.rows] != np.asarray(query_cameras)[own.probes])
    answerable = hits.counts > 0
    if not answerable.any():
        raise GalleryError(
            f"none of the {len(query_labels)} queries has a match among the {len(labels)} entries of the gallery"
            + (" (under another camera)" if query_cameras is not None else "")
        )
    places, positions = _hit_positions(query_rows, gallery_rows, hits, own, device)
    begin = hits.starts[:-1][answerable]
    counts = hits.counts[answerable]
    by_hits, by_trapezoids = _average_precisions(places, positions, begin, counts)
    first_ranks = positions[begin + counts - 1]
    return RetrievalResult(
        float(by_hits.mean()),
        float(by_trapezoids.mean()),
        {rank: float(np.mean(first_ranks <= rank)) if rank <= len(labels) else None for rank in ranks},
        len(counts),
        int((~answerable).sum()),
        len(labels),
        int((~counted).sum()),
        by_hits,
        first_ranks,
    )


def _average_precisions(
    places: Indices, positions: Indices, begin: Indices, counts: Indices
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By hits and by trapezoids, a number for each query, whose hits are `counts` many from `begin` on."""
    precisions = places / positions
    before = np.where(positions > 1, (places - 1) / np.maximum(positions - 1, 1), 1.0)
    by_hits: NDArray[np.float64] = np.add.reduceat(precisions, begin) / counts
    by_trapezoids: NDArray[np.float64] = np.add.reduceat((precisions + before) / 2, begin) / counts
    return by_hits, by_trapezoids


def _hit_positions(
    query_rows: Floats, gallery_rows: Floats, hits: Ragged, own: Ragged, device: torch.device | str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every hit, worst first within its query: its number among the hits and its rank in the list, both from 1."""
    scores = pair_scores(query_rows, gallery_rows, hits.probes, hits.rows)
    scores = scores[np.lexsort((scores, hits.probes))]  # ascending within each query
    # entries of the query's identity are never "others": hits are counted by their order, the rest does not count
    others, _ = count_at_least(query_rows, gallery_rows, own, scores - np.float32(TIE), hits.starts, device=device)
    places = hits.starts[1:][hits.probes] - np.arange(len(scores))  # 1 for the best hit of a query
    return places, others + places


def _check(
    queries: NDArray[Any],
    query_labels: Indices,
    gallery: NDArray[Any],
    gallery_labels: Indices,
    query_cameras: NDArray[Any] | None,
    gallery_cameras: NDArray[Any] | None,
    ranks: Sequence[int],
) -> None:
    if (query_cameras is None) != (gallery_cameras is None):
        raise GalleryError("cameras must be given for the queries and the gallery, or for neither")
    if len(query_labels) and int(query_labels.min()) < 0:
        raise GalleryError(f"queries: {int((query_labels < 0).sum())} have no identity; only the gallery may hold junk")
    if not ranks or min(ranks) < 1:
        raise GalleryError(f"ranks must be 1 or more; got {list(ranks)}")
    for what, rows, labels, cameras in (
        ("queries", queries, query_labels, query_cameras),
        ("gallery", gallery, gallery_labels, gallery_cameras),
    ):
        if labels.shape != (len(rows),) or (cameras is not None and np.shape(cameras) != (len(rows),)):
            raise GalleryError(f"{what}: {len(rows)} embeddings need one label and one camera each")
    if np.ndim(queries) == np.ndim(gallery) == 2 and np.shape(queries)[1] != np.shape(gallery)[1]:
        raise GalleryError(
            f"queries have {np.shape(queries)[1]} numbers each and the gallery's entries {np.shape(gallery)[1]}: "
            "they are of different models"
        )
