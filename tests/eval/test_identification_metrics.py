"""Ranks, CMC and TPIR at FPIR against dense formulas in float64, closed forms, and ties."""

from __future__ import annotations

import numpy as np
import pytest

from eval import similarity_blocks
from eval.identification_metrics import SearchResult, identification_rates, search
from eval.similarity_blocks import GalleryError, has_faiss

BACKENDS = ["torch", pytest.param("faiss", marks=pytest.mark.skipif(not has_faiss(), reason="faiss-cpu is optional"))]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(similarity_blocks, "PROBE_BLOCK", 17)
    monkeypatch.setattr(similarity_blocks, "GALLERY_BLOCK", 23)


def problem(num_probes=200, num_entries=120, width=8, seed=0):
    """Noisy embeddings of 60 identities; half of them are enrolled, some twice, some entries are distractors."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((60, width))
    labels, gallery_labels = random.integers(0, 60, num_probes), random.integers(-1, 30, num_entries)
    probes = centres[labels] + 0.7 * random.standard_normal((num_probes, width))
    gallery = centres[gallery_labels] + 0.7 * random.standard_normal((num_entries, width))
    return probes * random.uniform(0.1, 9, (num_probes, 1)), labels, gallery, gallery_labels


def dense(probes, labels, gallery, gallery_labels):
    """(is_mated, ranks, mate scores, other scores) with one matrix and Python loops."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (probes, gallery)]
    scores = unit[0] @ unit[1].T
    answer = []
    for row, label in zip(scores, labels, strict=True):
        own = (gallery_labels == label) & (label >= 0)
        other = row[~own].max() if (~own).any() else -np.inf
        if own.any():
            best = row[own].max()
            answer.append((True, 1 + sum(s >= best for s in row[~own]), best, other))
        else:
            answer.append((False, 0, np.nan, other))
    return [np.array(column) for column in zip(*answer, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_search_equals_the_dense_one(backend, seed):
    given = problem(seed=seed)
    is_mated, ranks, mates, others = dense(*given)
    found = search(*given, backend=backend, max_rank=200)
    assert is_mated.any()
    assert not is_mated.all()
    np.testing.assert_array_equal(found.is_mated, is_mated)
    np.testing.assert_array_equal(found.ranks, ranks)
    assert len(np.unique(ranks)) > 10
    np.testing.assert_allclose(found.mate_scores, mates, atol=1e-6)
    np.testing.assert_allclose(found.other_scores, others, atol=1e-6)
    assert (found.num_entries, found.num_identities) == (120, len(set(given[3]) - {-1}) + (given[3] < 0).sum())


@pytest.mark.skipif(not has_faiss(), reason="faiss-cpu is optional")
def test_faiss_tells_as_many_ranks_apart_as_were_asked_for():
    given = problem()
    every, few = search(*given, backend="torch"), search(*given, backend="faiss", max_rank=5)
    np.testing.assert_array_equal(few.ranks, np.minimum(every.ranks, 6))
    fast, slow = (identification_rates(found, ranks=(1, 5), fpirs=(0.1, 0.2)) for found in (few, every))
    assert fast.to_dict() == {**slow.to_dict(), "threshold_at_fpir": fast.to_dict()["threshold_at_fpir"]}
    with pytest.raises(GalleryError, match="told 5 apart"):
        identification_rates(few, ranks=(6,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_sees_no_difference_finds_nobody(backend):
    vector = np.random.default_rng(0).standard_normal(64)
    probes, gallery = np.tile(vector, (40, 1)), np.tile(vector * 3, (50, 1))
    found = search(probes, np.arange(40) % 25, gallery, np.arange(50) % 20, backend=backend, max_rank=50)
    assert set(found.ranks[found.is_mated]) <= {48, 49}  # 1 + all 47 or 48 others
    assert identification_rates(found, ranks=(1, 10)).rank_rates == {1: 0.0, 10: 0.0}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tie_counts_against_the_probe_wherever_it_lies(backend):
    """A copy of the mate under another name, in every place of the gallery, even where products round differently."""
    random = np.random.default_rng(1)
    for place in range(0, 60, 7):
        gallery = random.standard_normal((60, 128))
        labels = np.arange(60)
        gallery[place] = 2.0 * gallery[33 if place != 33 else 34]
        probe = gallery[[33 if place != 33 else 34]] + 0.01 * random.standard_normal((1, 128))
        found = search(probe, labels[[33 if place != 33 else 34]], gallery, labels, backend=backend)
        assert found.ranks.tolist() == [2]


def made_search(ranks, mates, alarms):
    """A search result written down: mated probes first."""
    count = len(ranks) + len(alarms)
    is_mated = np.arange(count) < len(ranks)
    every = np.zeros(count, dtype=np.int64)
    every[is_mated] = ranks
    scores = np.full(count, np.nan, dtype=np.float32)
    scores[is_mated] = mates
    others = np.full(count, 0.5, dtype=np.float32)
    others[~is_mated] = alarms
    return SearchResult(is_mated, every, scores, others, 1000, 1000, 1000)


def test_rates_of_a_search_written_down():
    alarms = np.arange(1000) / 1000.0
    ranks = [1, 1, 1, 1, 2, 7, 11, 1001]
    mates = [0.9895, 0.9885, 0.95, 0.3, 0.999, 0.999, 0.1, 0.1]
    rates = identification_rates(made_search(ranks, mates, alarms), ranks=(1, 2, 10, 1001), fpirs=(0.001, 0.01, 0.1))
    assert rates.rank_rates == {1: 0.5, 2: 5 / 8, 10: 6 / 8, 1001: None}
    # 10 alarms allowed: those from 0.990 on; the mate must be above 0.989, the 11th
    assert rates.tpir_at_fpir == {0.001: None, 0.01: 1 / 8, 0.1: 3 / 8}
    assert rates.threshold_at_fpir[0.01] == pytest.approx(0.989, abs=1e-6)
    assert rates.threshold_at_fpir[0.01] > np.float32(0.989)
    measured = np.mean(alarms.astype(np.float32) >= rates.threshold_at_fpir[0.01])
    assert measured == pytest.approx(0.01)
    assert (rates.num_mated, rates.num_non_mated) == (8, 1000)


def test_equal_alarms_stay_silent_together():
    alarms = np.repeat([0.9, 0.8, 0.1], [8, 8, 84])
    rates = identification_rates(made_search([1, 1, 1], [0.95, 0.85, 0.75], alarms), fpirs=(0.1, 0.2))
    # 10 of 100 would cut the second group in two: the threshold stays above it, and the measured FPIR is 8 %
    assert rates.tpir_at_fpir[0.1] == pytest.approx(2 / 3)
    assert rates.tpir_at_fpir[0.2] == pytest.approx(1.0)


def test_without_one_kind_of_probe_there_is_no_rate_of_it():
    alone = identification_rates(made_search([], [], np.linspace(0, 1, 1000)))
    assert set(alone.rank_rates.values()) == set(alone.tpir_at_fpir.values()) == {None}
    closed = identification_rates(made_search([1, 3], [0.5, 0.5], []))
    assert closed.rank_rates[1] == 0.5
    assert set(closed.tpir_at_fpir.values()) == {None}
    assert closed.to_dict()["tpir_at_fpir"]["0.01"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe_labels": np.zeros(3)}, "probes: 4 embeddings need as many labels"),
        ({"gallery": np.ones((5, 4))}, "probes have 3 numbers each and the gallery's entries 4"),
        ({"gallery": np.full((5, 3), np.nan)}, "gallery: 5 of 5 embeddings hold NaN"),
        ({"backend": "gpu"}, "unknown backend 'gpu'; there are auto, torch, faiss"),
    ],
)
def test_what_cannot_be_searched(change, words):
    given = {
        "probes": np.ones((4, 3)),
        "probe_labels": np.zeros(4),
        "gallery": np.ones((5, 3)),
        "gallery_labels": np.zeros(5),
    }
    with pytest.raises(GalleryError, match=words):
        search(**{**given, **change})


@pytest.mark.parametrize("options", [{"ranks": (0,)}, {"fpirs": (0.0,)}, {"fpirs": (1.0,)}])
def test_rates_that_do_not_exist(options):
    with pytest.raises(GalleryError, match="ranks must be 1 or more"):
        identification_rates(made_search([1], [0.5], []), **options)
