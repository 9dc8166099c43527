"""Blocks of scores against one dense matrix, and the memory they take."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from eval import similarity_blocks
from eval.similarity_blocks import (
    GalleryError,
    Ragged,
    count_at_least,
    nearest_by_faiss,
    pair_scores,
    rows_of_same_label,
    unit_rows,
)
from tests.ranks import REPO_ROOT


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that do not divide the sizes below."""
    for name, size in (("PROBE_BLOCK", 7), ("GALLERY_BLOCK", 11), ("_PAIR_BLOCK", 5)):
        monkeypatch.setattr(similarity_blocks, name, size)


def rows(count, width=6, seed=0):
    return unit_rows(np.random.default_rng(seed).standard_normal((count, width)), "rows")


def test_rows_of_the_same_label():
    found = rows_of_same_label(np.array([2, -1, 5, 0, 2]), np.array([2, 0, -1, 2, 0, 7]))
    lists = [found.rows[a:b].tolist() for a, b in zip(found.starts, found.starts[1:], strict=False)]
    assert lists == [[0, 3], [], [], [1, 4], [0, 3]]
    kept = found.keep(found.rows != 3)
    assert (kept.counts.tolist(), kept.rows.tolist()) == ([1, 0, 0, 2, 1], [0, 1, 4, 0])
    assert found.probes.tolist() == [0, 0, 3, 3, 4, 4]


@pytest.mark.parametrize("most", [1, 5])
@pytest.mark.usefixtures("small_blocks")
def test_counts_and_maxima_equal_those_of_the_whole_matrix(most):
    random = np.random.default_rng(most)
    probes, gallery = rows(30), rows(50, seed=1)
    labels, gallery_labels = random.integers(-1, 6, 30), random.integers(-1, 6, 50)
    left_out = rows_of_same_label(labels, gallery_labels)
    sizes = random.integers(0, most + 1, 30)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    thresholds = np.concatenate([np.sort(random.uniform(-1, 1, size)) for size in sizes]).astype(np.float32)
    counts, highest = count_at_least(probes, gallery, left_out, thresholds, starts)
    scores = probes.astype(np.float64) @ gallery.T.astype(np.float64)
    scores[(labels[:, None] == gallery_labels) & (labels >= 0)[:, None]] = -np.inf
    np.testing.assert_allclose(highest, scores.max(axis=1), atol=1e-6)
    expected = [(scores[p] >= t).sum() for p in range(30) for t in thresholds[starts[p] : starts[p + 1]]]
    assert counts.tolist() == expected
    assert sum(expected) > 100


def test_a_probe_that_leaves_out_everything_has_no_highest_score():
    gallery = rows(3)
    none = np.array([0, 0], dtype=np.int64)
    left_out = Ragged(np.array([0, 3]), np.arange(3))
    _, highest = count_at_least(rows(1), gallery, left_out, np.empty(0, np.float32), none)
    assert highest.tolist() == [-np.inf]


@pytest.mark.usefixtures("small_blocks")
def test_pair_scores():
    first, second = rows(9), rows(8, seed=1)
    left, right = np.arange(20) % 9, np.arange(20) % 8
    np.testing.assert_allclose(pair_scores(first, second, left, right), (first @ second.T)[left, right], atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_unit_rows():
    given = np.random.default_rng(0).standard_normal((12, 3)) * 1e-3
    given[4] = 0
    before = given.copy()
    unit = unit_rows(given, "gallery")
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(given, before)
    lengths = np.linalg.norm(unit, axis=1)
    assert lengths[4] == 0
    np.testing.assert_allclose(np.delete(lengths, 4), 1, atol=1e-6)
    given[5, 1], given[11] = np.nan, np.inf
    with pytest.raises(GalleryError, match="gallery: 2 of 12 embeddings hold NaN or infinity"):
        unit_rows(given, "gallery")
    for wrong in (np.ones(3), np.ones((0, 3)), np.ones((3, 0))):
        with pytest.raises(GalleryError, match="embeddings must be"):
            unit_rows(wrong, "probes")


def test_nearest_by_faiss_are_the_nearest():
    pytest.importorskip("faiss", reason="faiss-cpu is optional (requirements-optional.txt)")
    probes, gallery = rows(20), rows(60, seed=1)
    scores, nearest = nearest_by_faiss(probes, gallery, 7)
    dense = probes @ gallery.T
    assert nearest.tolist() == np.argsort(-dense, axis=1)[:, :7].tolist()
    np.testing.assert_allclose(scores, -np.sort(-dense, axis=1)[:, :7], atol=1e-6)


def test_without_faiss_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(similarity_blocks, "has_faiss", lambda: False)
    with pytest.raises(GalleryError, match="pip install faiss-cpu"):
        nearest_by_faiss(rows(1), rows(1), 1)


MEASURE = """
import sys
import numpy as np
import torch
from eval.identification_metrics import search
from eval.retrieval_metrics import retrieve
from tests.fuzz.guard import PeakMemory

torch.set_num_threads(1)
count = int(sys.argv[1])
random = np.random.default_rng(0)
probes, gallery = (random.standard_normal((count, 8)).astype(np.float32) for _ in range(2))
labels = np.arange(count) % (count // 3)
for call in (retrieve, search):
    call(probes[:600], labels[:600], gallery[:9000], labels[:9000])
    before = PeakMemory().read()
    call(probes, labels, gallery, labels)
    print(PeakMemory().read() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory as Linux tells it")
def test_memory_does_not_grow_with_the_matrix():
    count = 10_000  # the whole matrix would be 400 MB
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(count)], cwd=REPO_ROOT, capture_output=True, text=True, check=True
    )
    grown = [int(line) for line in done.stdout.split()]
    assert len(grown) == 2
    assert max(grown) < 64 << 20
