"""Intervals: resamples against a float64 restatement, coverage on made-up people, seeds, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eval import bootstrap
from eval.bootstrap import bootstrap_intervals
from eval.pair_metrics import VerificationError, evaluate_pairs
from tests.oracles import verification as oracle


def people(num_identities: int, num_pairs: int, seed: int, spread: float = 0.0):
    """Embeddings (2N, 8), is_same and identities; `spread` makes some people harder than others, in all their pairs."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_identities, 8))
    noise = 0.6 * np.exp(spread * rng.normal(size=num_identities))
    first = rng.integers(num_identities, size=num_pairs)
    same = np.arange(num_pairs) % 2 == 0
    second = np.where(same, first, (first + rng.integers(1, num_identities, size=num_pairs)) % num_identities)
    identities = np.stack([first, second], axis=1).reshape(-1)
    embeddings = centres[identities] + noise[identities, None] * rng.normal(size=(2 * num_pairs, 8))
    return embeddings, same, identities


@pytest.mark.parametrize("unit", ["folds", "identities"])
def test_every_resample_equals_the_definitions(unit, monkeypatch):
    embeddings, same, identities = people(12, 60, seed=1)
    embeddings = np.round(embeddings)  # some equal scores
    result = evaluate_pairs(embeddings, same, num_folds=6, fars=(0.4,))
    seen = {}

    class Recorder(bootstrap._Curve):
        def numbers(self, weights, fars):
            seen.update(weights=weights, columns=super().numbers(weights, fars))
            return seen["columns"]

    monkeypatch.setattr(bootstrap, "_Curve", Recorder)
    bootstrap_intervals(result, same, unit=unit, identities=identities, num_resamples=8)
    rng = np.random.default_rng(0)
    num_units = 6 if unit == "folds" else len(set(identities.tolist()))
    numbers = np.unique(identities, return_inverse=True)[1]
    for row, counts in enumerate(rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=8)):
        expected = [
            counts[pair // 10] if unit == "folds"
            else counts[numbers[2 * pair]] * (1 if same[pair] else counts[numbers[2 * pair + 1]])
            for pair in range(60)
        ]  # fmt: skip
        assert seen["weights"][row].tolist() == expected
        for column, function in zip(seen["columns"], (oracle.auc, oracle.eer), strict=False):
            assert column[row] == pytest.approx(function(result.scores, same, expected), abs=1e-12)
        assert seen["columns"][2][row] == pytest.approx(
            oracle.tar_at_far(result.scores, same, expected, 0.4), abs=1e-12
        )


def test_equal_weights_give_the_numbers_themselves():
    embeddings, same, _ = people(40, 400, seed=3)
    result = evaluate_pairs(embeddings, same)
    auc, eer, tar = bootstrap._Curve(result.scores, same).numbers(np.ones((1, 400)), [0.1])
    assert (auc[0], eer[0], tar[0]) == pytest.approx((result.auc, result.eer, result.tar_at_far[0.1]))


def test_accuracy_of_resampled_folds_is_the_mean_of_the_drawn_ones():
    embeddings, same, identities = people(30, 103, seed=5)
    result = evaluate_pairs(embeddings, same, num_folds=10)
    found = bootstrap_intervals(result, same, unit="folds", num_resamples=500, seed=4, confidence=0.8)
    counts = np.random.default_rng(4).multinomial(10, np.full(10, 0.1), size=500)
    means = counts @ np.array(result.fold_accuracies) / 10
    assert found.accuracy == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))
    whole = evaluate_pairs(embeddings, same, num_folds=1, protocol="exact")
    by_identity = bootstrap_intervals(whole, same, unit="identities", identities=identities, num_resamples=200)
    assert by_identity.accuracy[0] < whole.accuracy < by_identity.accuracy[1]


def test_intervals_do_not_depend_on_how_many_resamples_are_held_at_a_time(monkeypatch):
    embeddings, same, identities = people(30, 200, seed=2)
    result = evaluate_pairs(embeddings, same)
    options = {"unit": "identities", "identities": identities, "num_resamples": 50, "seed": 9}
    at_once = bootstrap_intervals(result, same, **options)
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_A_TIME", 1000)
    assert bootstrap_intervals(result, same, **options) == at_once
    assert bootstrap_intervals(result, same, **{**options, "seed": 8}) != at_once
    numbers = json.loads(json.dumps(at_once.to_dict()))
    assert numbers["tar_at_far"]["0.1"] == list(at_once.tar_at_far[0.1])
    assert numbers["tar_at_far"]["0.0001"] is None


def test_a_nominal_90_percent_interval_covers_as_often_over_identities_and_less_over_folds_that_share_people():
    embeddings, same, _ = people(20_000, 60_000, seed=10_000, spread=0.6)
    truth = evaluate_pairs(embeddings, same, num_folds=1).auc  # of the population, from a very large sample
    runs = 150
    hits = {"identities": 0, "folds": 0}
    for seed in range(runs):
        embeddings, same, identities = people(60, 240, seed, spread=0.6)
        result = evaluate_pairs(embeddings, same, num_folds=10, fars=())
        for unit in hits:
            found = bootstrap_intervals(
                result, same, unit=unit, identities=identities, num_resamples=120, seed=seed, confidence=0.9
            )
            hits[unit] += found.auc[0] <= truth <= found.auc[1]
    # the standard error of 0.9 over 150 runs is 0.024; the band is 3 of them on either side
    assert 0.83 * runs <= hits["identities"] <= 0.97 * runs, hits
    assert hits["folds"] < hits["identities"], hits


def test_what_cannot_be_resampled_is_refused():
    embeddings, same, identities = people(10, 40, seed=0)
    result = evaluate_pairs(embeddings, same, num_folds=1)
    with pytest.raises(VerificationError, match="over folds: there is only one"):
        bootstrap_intervals(result, same, unit="folds")
    with pytest.raises(VerificationError, match=r"identities of the images are not known \(a .bin does not"):
        bootstrap_intervals(result, same, unit="identities")
    with pytest.raises(VerificationError, match="are not known"):
        bootstrap_intervals(result, same, unit="identities", identities=np.where(identities == 3, -1, identities))
    with pytest.raises(VerificationError, match="contradict each other"):
        bootstrap_intervals(result, same, unit="identities", identities=identities[::-1])
    with pytest.raises(VerificationError, match="unknown unit 'pairs'; there are folds, identities"):
        bootstrap_intervals(result, same, unit="pairs")
    with pytest.raises(VerificationError, match="at least 1 resample"):
        bootstrap_intervals(result, same, unit="identities", identities=identities, num_resamples=0)


def test_a_set_of_one_kind_has_an_interval_of_its_accuracy_alone():
    embeddings, _, _ = people(10, 40, seed=0)
    result = evaluate_pairs(embeddings, [True] * 40, num_folds=4)
    found = bootstrap_intervals(result, np.ones(40, dtype=bool), unit="folds", num_resamples=20)
    assert found.accuracy is not None
    assert (found.auc, found.eer, set(found.tar_at_far.values())) == (None, None, {None})


def test_the_accuracy_lies_in_its_interval_where_embeddings_are_zero_or_all_equal():
    rng = np.random.default_rng(3)
    zeros = rng.integers(-1, 2, (120, 2)).astype(float)  # cosines of exact -1, 0, 1, and rows of zeros
    same = np.arange(60) % 3 == 0
    for embeddings in (zeros, np.tile(rng.normal(size=(1, 5)), (120, 1))):
        result = evaluate_pairs(embeddings, same, num_folds=6)
        assert result.accuracy == pytest.approx(np.mean(result.is_right), abs=1e-12)
        interval = bootstrap_intervals(result, same, unit="folds", num_resamples=200).accuracy
        assert interval[0] - 1e-12 <= result.accuracy <= interval[1] + 1e-12
