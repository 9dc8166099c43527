"""Which images are enrolled and which are searched for, and several images of an identity as one entry; no scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.similarity_blocks import Floats, GalleryError, Indices
from eval.template_metrics import pool_templates


@dataclass(frozen=True)
class Split:
    """Rows of one set, ascending.

    Attributes:
        gallery: enrolled images.
        probes: all others with an identity.
        num_left_out: images without an identity, in neither.
    """

    gallery: Indices
    probes: Indices
    num_left_out: int


def split_set(labels: NDArray[Any], *, enroll: int = 1, impostor_share: float = 0.0) -> Split:
    """Splits a labelled set by a rule without chance, so that everyone gets the same split.

    An identity with more than `enroll` images can be enrolled. Of these, in the order of their labels, every so many-th
    is not but stays an impostor: number i (from 0) where floor((i + 1) * share) > floor(i * share). Of each enrolled
    identity the first `enroll` images in the set's order are its gallery, the others mated probes. All images of
    impostors, and of identities with too few images to be enrolled, are non-mated probes.

    Args:
        labels: (N,) whole numbers; negative: no identity.
        enroll: images enrolled for each identity, 1 or more.
        impostor_share: in [0, 1).

    Raises:
        GalleryError: options out of range, or nobody left to enroll.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if enroll < 1 or not 0 <= impostor_share < 1:
        raise GalleryError(
            f"enroll must be 1 or more and the share of impostors in [0, 1); got {enroll}, {impostor_share}"
        )
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    identities, firsts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    eligible = np.flatnonzero(counts > enroll)
    steps = np.floor((np.arange(len(eligible) + 1) * impostor_share) + 1e-9)
    enrolled = np.zeros(len(identities), dtype=bool)
    enrolled[eligible[np.diff(steps) == 0]] = True
    if not enrolled.any():
        raise GalleryError(
            f"nobody can be enrolled: {len(eligible)} of {len(identities)} identities have more than {enroll} images, "
            f"and a share of {impostor_share} of them stays outside"
        )
    places = np.arange(len(order)) - np.repeat(firsts, counts)
    in_gallery = np.repeat(enrolled, counts) & (places < enroll)
    return Split(np.sort(order[in_gallery]), np.sort(order[~in_gallery]), int((labels < 0).sum()))


def pool_identities(embeddings: NDArray[Any], labels: NDArray[Any]) -> tuple[Floats, Indices]:
    """One entry for each identity: the sum of its embeddings of length 1, at length 1; those without stay as they are.

    Returns:
        (E, D) entries and their labels (E,), ascending; -1 for entries without an identity, which come last.
    """
    labels = np.asarray(labels, dtype=np.int64)
    own = np.where(labels >= 0, labels, labels.max(initial=-1) + 1 + np.arange(len(labels)))
    ids, entries = pool_templates(embeddings, own, np.arange(len(labels)), keep_norms=False)
    return entries, np.where(ids <= labels.max(initial=-1), ids, -1)


def common_labels(
    first: NDArray[np.int64], first_names: NDArray[np.str_], second: NDArray[np.int64], second_names: NDArray[np.str_]
) -> tuple[Indices, Indices]:
    """Labels of two sets in one numbering, by the names of the identities; negative ones stay -1."""
    known = np.unique(np.concatenate([first_names, second_names]))
    return tuple(  # type: ignore[return-value]  # of two
        np.where(labels >= 0, np.append(np.searchsorted(known, names), -1)[labels], -1).astype(np.int64)
        for labels, names in ((first, first_names), (second, second_names))
    )
