"""Templates as pure functions: images' embeddings -> one per template, scores of their pairs; no files, no models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.similarity_blocks import Floats, GalleryError, Indices, pair_scores

_ROWS = 8192  # images pooled at a time, as float64


def pool_templates(
    embeddings: NDArray[Any],
    templates: NDArray[Any],
    media: NDArray[Any],
    *,
    weights: NDArray[Any] | None = None,
    keep_norms: bool = True,
) -> tuple[Indices, Floats]:
    """One embedding for each template: the mean of each of its media, the sum over the media, length 1.

        x_i' = w_i x_i  (keep_norms)  or  w_i x_i / |x_i|
        t    = sum over media m of mean over images i of m of x_i',   then t / |t|

    so that the frames of one video count once. Source: insightface's `image2template_feature` (recognition/
    arcface_torch/eval_ijbc.py), whose `use_norm_score = True` keeps the norms and whose `use_detector_score` multiplies
    by the detector's score; both are on there. Sums are in float64 here as there.

    Args:
        embeddings: (N, D) real.
        templates: (N,) template ids.
        media: (N,) media ids; the same one in two templates makes two media.
        weights: (N,) factors of the embeddings, 0 or more; None: 1.
        keep_norms: a long embedding, which tells a good image, weighs more.

    Returns:
        Template ids (T,), ascending, and (T, D) float32 of length 1; zero where everything cancels.

    Raises:
        GalleryError: shapes that do not fit, or embeddings that are not finite.
    """
    count = len(embeddings)
    factors = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if embeddings.ndim != 2 or not count or {len(templates), len(media), len(factors)} != {count}:
        raise GalleryError(
            f"embeddings of shape {embeddings.shape} need as many templates, media and weights; got "
            f"{len(templates)}, {len(media)} and {len(factors)}"
        )
    order = np.lexsort((media, templates))
    ordered_templates, ordered_media = np.asarray(templates)[order], np.asarray(media)[order]
    is_first = np.concatenate([[True], np.diff(ordered_templates) != 0])
    is_new_media = is_first | np.concatenate([[True], np.diff(ordered_media) != 0])
    bounds = np.append(np.flatnonzero(is_first), count)
    pooled = np.empty((len(bounds) - 1, embeddings.shape[1]), dtype=np.float32)
    for low, high in _blocks(bounds):
        start, stop = int(bounds[low]), int(bounds[high])
        rows = embeddings[order[start:stop]].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if not np.isfinite(norms).all():
            raise GalleryError(
                f"{int((~np.isfinite(norms)).sum())} embeddings in templates {ordered_templates[start]} .. "
                f"{ordered_templates[stop - 1]} hold NaN or infinity; the model has diverged or its weights are damaged"
            )
        scales = factors[order[start:stop]]
        rows *= (scales if keep_norms else scales / np.where(norms > 0, norms, 1.0))[:, None]
        media_starts = np.flatnonzero(is_new_media[start:stop])
        means = np.add.reduceat(rows, media_starts) / np.diff(np.append(media_starts, len(rows)))[:, None]
        sums = np.add.reduceat(means, np.searchsorted(media_starts, bounds[low:high] - start))
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        pooled[low:high] = sums / np.where(lengths > 0, lengths, 1.0)[:, None]
    return ordered_templates[bounds[:-1]].astype(np.int64), pooled


def _blocks(bounds: Indices) -> Iterator[tuple[int, int]]:
    """Ranges of whole templates with up to _ROWS images together; a larger template is alone."""
    low = 0
    while low < len(bounds) - 1:
        high = max(low + 1, int(np.searchsorted(bounds, bounds[low] + _ROWS, side="right")) - 1)
        yield low, high
        low = high


def template_rows(template_ids: Indices, wanted: NDArray[Any], what: str) -> Indices:
    """Rows of the wanted templates among ascending `template_ids`.

    Raises:
        GalleryError: one that has no image; `what` names the list.
    """
    rows = np.searchsorted(template_ids, wanted)
    rows[rows == len(template_ids)] = 0
    missing = np.flatnonzero(template_ids[rows] != wanted)
    if len(missing):
        raise GalleryError(
            f"{what}: {len(missing)} entries name templates without an image, the first is {wanted[missing[0]]}"
        )
    return rows


def template_pair_scores(
    template_ids: Indices, pooled: Floats, first: NDArray[Any], second: NDArray[Any], what: str = "pairs"
) -> Floats:
    """Cosines of pairs of templates, (M,) float32.

    Raises:
        GalleryError: a template without an image.
    """
    return pair_scores(
        pooled, pooled, template_rows(template_ids, first, what), template_rows(template_ids, second, what)
    )


def roc_points(scores: NDArray[Any], is_same: NDArray[np.bool_], count: int = 121) -> tuple[list[float], list[float]]:
    """TAR over FAR at up to `count` FARs from one accepted impostor to all, evenly spaced by their logarithm.

    Each FAR is k / impostors with a whole k, each TAR that of the loosest threshold that accepts no more than k; empty
    where the pairs are of one kind.
    """
    genuine, impostors = np.sort(scores[is_same]), np.sort(scores[~is_same])[::-1]
    if not len(genuine) or not len(impostors):
        return [], []
    accepted = np.unique(np.geomspace(1, len(impostors), count).round().astype(np.int64))
    refused = np.append(impostors, -np.inf)[accepted]
    rates = 1.0 - np.searchsorted(genuine, refused, side="right") / len(genuine)
    return (accepted / len(impostors)).tolist(), rates.tolist()
