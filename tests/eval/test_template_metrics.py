"""Pooling of templates against its definition, pairs' scores, ROC points."""

from __future__ import annotations

import numpy as np
import pytest

from eval import template_metrics
from eval.similarity_blocks import GalleryError
from eval.template_metrics import pool_templates, roc_points, template_pair_scores, template_rows


def by_definition(embeddings, templates, media, weights, keep_norms):
    pooled = []
    for template in np.unique(templates):
        total = np.zeros(embeddings.shape[1])
        for medium in np.unique(media[templates == template]):
            rows = np.flatnonzero((templates == template) & (media == medium))
            vectors = [weights[i] * embeddings[i] / (1 if keep_norms else np.linalg.norm(embeddings[i])) for i in rows]
            total += np.mean(vectors, axis=0)
        pooled.append(total / np.linalg.norm(total))
    return np.unique(templates), np.array(pooled)


@pytest.mark.parametrize("rows", [1, 7, 8192])
@pytest.mark.parametrize("keep_norms", [True, False])
def test_templates_are_what_their_definition_says(monkeypatch, rows, keep_norms):
    monkeypatch.setattr(template_metrics, "_ROWS", rows)
    random = np.random.default_rng(rows)
    embeddings = random.standard_normal((200, 5)) * random.uniform(0.1, 10, (200, 1))
    templates, media = random.choice([3, 4, 9, 70, 71, 1000], 200), random.integers(0, 4, 200)
    weights = random.uniform(0, 1, 200)
    ids, pooled = pool_templates(embeddings, templates, media, weights=weights, keep_norms=keep_norms)
    expected_ids, expected = by_definition(embeddings, templates, media, weights, keep_norms)
    assert ids.tolist() == expected_ids.tolist()
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
    _, unweighted = pool_templates(embeddings, templates, media, keep_norms=keep_norms)
    np.testing.assert_allclose(
        unweighted, by_definition(embeddings, templates, media, np.ones(200), keep_norms)[1], atol=1e-6
    )


def test_the_frames_of_a_video_count_once():
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    _, pooled = pool_templates(embeddings, np.zeros(4), np.array([8, 5, 5, 5]))
    np.testing.assert_allclose(pooled, [[np.sqrt(0.5), np.sqrt(0.5)]], atol=1e-7)
    _, apart = pool_templates(embeddings, np.zeros(4), np.arange(4))
    np.testing.assert_allclose(apart, [np.array([1, 3]) / np.sqrt(10)], atol=1e-7)


def test_what_cancels_is_zero_and_what_is_not_finite_is_named():
    _, pooled = pool_templates(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2), np.arange(2))
    assert pooled.tolist() == [[0, 0]]
    with pytest.raises(GalleryError, match=r"1 embeddings in templates 4 .. 5 hold NaN"):
        pool_templates(np.array([[1.0], [np.nan]]), np.array([5, 4]), np.arange(2))
    with pytest.raises(GalleryError, match="as many templates, media and weights; got 3, 2 and 2"):
        pool_templates(np.ones((2, 2)), np.zeros(3), np.zeros(2))


def test_pairs_of_templates():
    ids, pooled = pool_templates(np.eye(3) + 0.5, np.array([10, 30, 20]), np.arange(3))
    scores = template_pair_scores(ids, pooled, np.array([10, 30]), np.array([10, 20], dtype=np.int32))
    np.testing.assert_allclose(scores, [1.0, pooled[1] @ pooled[2]], atol=1e-6)
    assert template_rows(ids, np.array([30, 10]), "x").tolist() == [2, 0]
    with pytest.raises(GalleryError, match="probes: 2 entries name templates without an image, the first is 25"):
        template_rows(ids, np.array([10, 25, 99]), "probes")


def test_roc_points_are_those_of_the_definition():
    random = np.random.default_rng(0)
    scores = np.round(random.standard_normal(3000), 2)  # with ties
    is_same = np.arange(3000) < 1000
    scores[is_same] += 1
    fars, tars = roc_points(scores, is_same, count=20)
    assert fars[0] == 1 / 2000
    assert (fars[-1], tars[-1]) == (1.0, 1.0)
    for far, tar in zip(fars[:-1], tars[:-1], strict=True):
        allowed = [t for t in np.unique(scores) if np.mean(scores[~is_same] >= t) <= far + 1e-12]
        assert tar == pytest.approx(np.mean(scores[is_same] >= min(allowed, default=np.inf)))
    assert roc_points(scores[:1000], is_same[:1000]) == ([], [])
