"""mAP in both definitions and CMC against the rules written as loops, by hand, and against ties."""

from __future__ import annotations

import numpy as np
import pytest

from eval import similarity_blocks
from eval.retrieval_metrics import DISTRACTOR, JUNK, retrieve
from eval.similarity_blocks import GalleryError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(similarity_blocks, "PROBE_BLOCK", 13)
    monkeypatch.setattr(similarity_blocks, "GALLERY_BLOCK", 29)


def problem(seed, num_queries=60, num_entries=300, width=8):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((22, width))
    labels, gallery_labels = random.integers(0, 20, num_queries), random.integers(-2, 18, num_entries)
    queries = centres[labels] + 0.8 * random.standard_normal((num_queries, width))
    gallery = centres[gallery_labels] + 0.8 * random.standard_normal((num_entries, width))
    return (
        queries,
        labels,
        gallery,
        gallery_labels,
        random.integers(1, 4, num_queries),
        random.integers(1, 4, num_entries),
    )


def loops(queries, labels, gallery, gallery_labels, cameras, gallery_cameras):
    """(AP by hits, AP by trapezoids, first rank) of each query with a match: one entry after the other."""
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    ).T
    answer = []
    for row, label, camera in zip(scores, labels, cameras, strict=True):
        same = gallery_labels == label
        junk = (gallery_labels == JUNK) | (same & (gallery_cameras == camera))
        is_hit = [same[i] for i in np.argsort(-row) if not junk[i]]
        matches = sum(is_hit)
        if not matches:
            continue
        hits, by_hits, area, recall, precision, first = 0, 0.0, 0.0, 0.0, 1.0, 0
        for place, hit in enumerate(is_hit, start=1):
            hits += hit
            by_hits += hit * hits / place / matches
            area += (hits / matches - recall) * (precision + hits / place) / 2
            recall, precision = hits / matches, hits / place
            first = first or (place if hit else 0)
        answer.append((by_hits, area, first))
    return [np.array(column) for column in zip(*answer, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_rules_as_loops(seed):
    *given, cameras, gallery_cameras = problem(seed)
    by_hits, area, first = loops(*given, cameras, gallery_cameras)
    got = retrieve(*given, query_cameras=cameras, gallery_cameras=gallery_cameras, ranks=(1, 3, 10))
    np.testing.assert_allclose(got.average_precisions, by_hits, atol=1e-12)
    np.testing.assert_array_equal(got.first_ranks, first)
    assert got.mean_ap == pytest.approx(by_hits.mean())
    assert got.mean_ap_trapezoid == pytest.approx(area.mean())
    assert got.mean_ap_trapezoid < got.mean_ap
    assert got.rank_rates == {rank: np.mean(first <= rank) for rank in (1, 3, 10)}
    assert got.num_unanswerable == len(given[1]) - len(first)
    assert got.num_unanswerable > 0
    assert got.num_junk == (given[3] == JUNK).sum()
    assert got.num_junk + got.num_entries == 300


def line(angles):
    """Unit vectors in the plane; the query is at 0."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def by_hand(labels, cameras=None, query_camera=1, **options):
    """A gallery already in order of similarity, for one query of identity 7."""
    both = {} if cameras is None else {"query_cameras": [query_camera], "gallery_cameras": cameras}
    return retrieve(line([0.0]), [7], line(np.arange(1, len(labels) + 1) / 10), labels, **both, **options)


def test_average_precision_by_hand():
    # hits at 1, 2, 4 and 7: the example whose areas differ
    got = by_hand([7, 7, 1, 7, 2, 3, 7])
    assert got.mean_ap == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    assert got.mean_ap_trapezoid == pytest.approx((1 + 1 + (2 / 3 + 3 / 4) / 2 + (3 / 6 + 4 / 7) / 2) / 4)
    assert got.rank_rates == {1: 1.0, 5: 1.0, 10: None, 20: None}
    late = by_hand([1, 2, 7])
    assert (late.mean_ap, late.mean_ap_trapezoid) == (pytest.approx(1 / 3), pytest.approx((0 + 1 / 3) / 2))
    assert late.first_ranks.tolist() == [3]


def test_junk_and_the_own_camera_do_not_count_and_distractors_do():
    assert by_hand([JUNK, 7]).mean_ap == 1.0
    assert by_hand([DISTRACTOR, 7]).mean_ap == 0.5
    assert by_hand([7, 7, 1, 7], cameras=[1, 2, 2, 3]).mean_ap == pytest.approx((1 + 2 / 3) / 2)
    assert by_hand([1, 7], cameras=[1, 2]).mean_ap == 0.5  # another identity under the same camera counts
    # the same image again, as query and gallery are one folder: out by the camera rule
    assert by_hand([7, 1, 7], cameras=[1, 1, 3]).first_ranks.tolist() == [2]


def test_ties_count_against_the_query():
    vector = np.random.default_rng(0).standard_normal((1, 64))
    same = retrieve(vector, [1], np.tile(2 * vector, (10, 1)), [1] * 2 + [2] * 8)
    assert same.first_ranks.tolist() == [9]
    assert same.mean_ap == pytest.approx((1 / 9 + 2 / 10) / 2)


def test_a_query_without_a_match_is_in_no_mean():
    gallery, labels = line([0.1, 0.2]), [7, 8]
    got = retrieve(line([0.0, 0.0]), [7, 9], gallery, labels)
    assert (got.num_queries, got.num_unanswerable, got.mean_ap) == (1, 1, 1.0)
    with pytest.raises(GalleryError, match="none of the 1 queries has a match among the 2 entries"):
        retrieve(line([0.0]), [9], gallery, labels)
    with pytest.raises(GalleryError, match="under another camera"):
        retrieve(line([0.0]), [7], gallery, labels, query_cameras=[1], gallery_cameras=[1, 1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query_labels": [-1]}, "queries: 1 have no identity"),
        ({"gallery_labels": [-1, -1]}, "all 2 entries are junk"),
        ({"gallery_labels": [1]}, "gallery: 2 embeddings need one label and one camera each"),
        ({"query_cameras": [1]}, "for the queries and the gallery, or for neither"),
        ({"gallery": np.ones((2, 3))}, "queries have 2 numbers each and the gallery's entries 3"),
        ({"ranks": (0,)}, "ranks must be 1 or more"),
        ({"queries": np.full((1, 2), np.inf)}, "queries: 1 of 1 embeddings hold NaN"),
    ],
)
def test_what_cannot_be_retrieved(change, words):
    given = {"queries": line([0.0]), "query_labels": [7], "gallery": line([0.1, 0.2]), "gallery_labels": [7, 8]}
    with pytest.raises(GalleryError, match=words):
        retrieve(**{**given, **change})
