"""The pairs protocol against slow, plain restatements of the definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.model_selection import KFold

from eval.verification import VerificationError, evaluate_pairs
from tests.oracles import verification as oracle


def noisy_pairs(num_pairs: int, noise: float = 1.2, dimension: int = 16, seed: int = 0):
    """(2N, D) float32 embeddings of uneven length and (N,) flags in random order."""
    rng = np.random.default_rng(seed)
    is_same = rng.random(num_pairs) < 0.5
    first = rng.normal(size=(num_pairs, dimension))
    second = np.where(is_same[:, None], first, rng.normal(size=first.shape)) + noise * rng.normal(size=first.shape)
    embeddings = np.stack([first, second], axis=1).reshape(2 * num_pairs, dimension)
    return (embeddings * rng.uniform(0.5, 30, (2 * num_pairs, 1))).astype(np.float32), is_same


def grid_reference(embeddings, is_same, num_folds):
    """insightface's protocol with loops over thresholds and pairs, and scikit-learn's folds."""
    unit = np.array([row.astype(float) / np.sqrt((row.astype(float) ** 2).sum()) for row in embeddings])
    distance = np.array([((unit[2 * i] - unit[2 * i + 1]) ** 2).sum() for i in range(len(is_same))])
    accuracies, thresholds = [], []
    pairs = np.arange(len(is_same))
    splits = KFold(num_folds).split(pairs) if num_folds > 1 else [(pairs, pairs)]
    for train, test in splits:
        best, best_accuracy = 0.0, -1.0
        for threshold in np.arange(0, 4, 0.01):
            accuracy = np.mean((distance[train] < threshold) == is_same[train])
            if accuracy > best_accuracy:  # the first best stays
                best, best_accuracy = threshold, accuracy
        accuracies.append(np.mean((distance[test] < best) == is_same[test]))
        thresholds.append(1 - best / 2)
    return accuracies, thresholds


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(200, 10), (203, 10), (97, 7), (30, 1), (12, 12)])
def test_insightface_protocol_equals_its_definition(num_pairs, num_folds):
    embeddings, is_same = noisy_pairs(num_pairs, seed=num_pairs)
    result = evaluate_pairs(embeddings, is_same, num_folds=num_folds)
    accuracies, thresholds = grid_reference(embeddings, is_same, num_folds)
    assert result.fold_accuracies == pytest.approx(accuracies, abs=1e-12)
    assert result.fold_thresholds == pytest.approx(thresholds, abs=1e-12)
    assert result.accuracy == pytest.approx(np.mean(accuracies))
    assert result.accuracy_std == pytest.approx(np.std(accuracies))
    assert 0.5 < result.accuracy < 1


def test_a_distance_equal_to_the_threshold_is_refused():
    # one image twice: distance 0 is not < 0, so the first best threshold is .01, not 0
    embeddings = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]] * 4)
    result = evaluate_pairs(embeddings, [True, False] * 4, num_folds=4)
    assert result.accuracy == 1.0
    assert result.fold_thresholds == pytest.approx([1 - 0.01 / 2] * 4)


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(60, 10), (43, 6), (20, 1)])
def test_exact_protocol_finds_the_best_of_all_thresholds(num_pairs, num_folds):
    embeddings, is_same = noisy_pairs(num_pairs, seed=num_folds)
    result = evaluate_pairs(embeddings, is_same, num_folds=num_folds, protocol="exact")
    for fold, threshold, accuracy in zip(
        np.array_split(np.arange(num_pairs), num_folds), result.fold_thresholds, result.fold_accuracies, strict=True
    ):
        others = np.setdiff1d(np.arange(num_pairs), fold) if num_folds > 1 else fold
        chosen = np.mean((result.scores[others] >= threshold) == is_same[others])
        best = max(np.mean((result.scores[others] >= t) == is_same[others]) for t in [*result.scores[others], 2.0])
        assert chosen == best
        assert accuracy == np.mean((result.scores[fold] >= threshold) == is_same[fold])


def test_exact_protocol_can_accept_all_or_none_and_split_neighbouring_floats():
    same = evaluate_pairs(np.eye(2)[[0, 0, 1, 1, 0, 0]], [True] * 3, num_folds=3, protocol="exact")
    none = evaluate_pairs(np.eye(2)[[0, 0, 1, 1, 0, 0]], [False] * 3, num_folds=3, protocol="exact")
    assert same.accuracy == none.accuracy == 1.0
    from eval.pair_metrics import _best_threshold

    low = 0.5
    high = np.nextafter(low, 1)
    threshold = _best_threshold(np.array([low, high]), np.array([False, True]))
    assert low < threshold <= high


def test_auc_eer_and_tar_at_far_equal_their_definitions():
    embeddings, is_same = noisy_pairs(3000, seed=5)
    result = evaluate_pairs(embeddings, is_same)
    genuine, impostors = result.scores[is_same], result.scores[~is_same]
    wins = (genuine[:, None] > impostors[None, :]).mean()
    assert result.auc == pytest.approx(wins, abs=1e-9)
    thresholds = np.sort(result.scores)
    far = np.array([(impostors >= t).mean() for t in thresholds])
    frr = np.array([(genuine < t).mean() for t in thresholds])
    nearest = np.abs(far - frr).argmin()
    assert result.eer == pytest.approx((far[nearest] + frr[nearest]) / 2, abs=1e-3)
    for wanted in (0.1, 0.01):
        allowed = thresholds[far <= wanted]
        assert result.tar_at_far[wanted] == pytest.approx((genuine >= allowed.min()).mean(), abs=1e-12)
        threshold = result.threshold_at_far[wanted]
        assert (impostors >= threshold).mean() <= wanted
        assert (genuine >= threshold).mean() == result.tar_at_far[wanted]


def test_equal_error_rate_of_a_known_curve():
    # impostors .1 .2 .3 .4, genuine .25 .5 .6 .7: at .25 < t <= .3 one of four is wrong on either side
    cosines = [0.1, 0.2, 0.3, 0.4, 0.25, 0.5, 0.6, 0.7]
    rows = [row for c in cosines for row in ([1.0, 0.0], [c, np.sqrt(1 - c * c)])]
    result = evaluate_pairs(np.array(rows), [False] * 4 + [True] * 4, num_folds=2)
    assert result.eer == pytest.approx(0.25)
    assert result.scores == pytest.approx(cosines)


@pytest.mark.parametrize(("num_different", "known"), [(99, []), (100, [0.1]), (1000, [0.1, 0.01])])
def test_a_far_needs_ten_impostors(num_different, known):
    embeddings = np.random.default_rng(0).normal(size=(2 * (num_different + 5), 4))
    result = evaluate_pairs(embeddings, [True] * 5 + [False] * num_different)
    assert [far for far, tar in result.tar_at_far.items() if tar is not None] == known
    assert [far for far, t in result.threshold_at_far.items() if t is not None] == known


def test_equal_scores_do_not_push_the_far_over_its_bound():
    embeddings = np.tile([[1.0, 0.0]], (400, 1))  # 200 pairs, all of cosine 1
    result = evaluate_pairs(embeddings, [True, False] * 100)
    assert result.tar_at_far[0.1] == 0.0
    assert result.threshold_at_far[0.1] > 1.0


@pytest.mark.parametrize("flag", [True, False])
def test_one_sided_sets_have_no_auc(flag):
    result = evaluate_pairs(np.random.default_rng(0).normal(size=(400, 4)), [flag] * 200)
    assert result.auc is None
    assert result.eer is None
    assert set(result.tar_at_far.values()) == {None}
    assert (result.num_same, result.num_different) == ((200, 0) if flag else (0, 200))


def test_results_become_json():
    embeddings, is_same = noisy_pairs(300)
    numbers = json.loads(json.dumps(evaluate_pairs(embeddings, is_same).to_dict()))
    assert numbers["tar_at_far"]["0.0001"] is None
    assert 0 < numbers["tar_at_far"]["0.1"] < 1
    assert len(numbers["fold_accuracies"]) == 10


def test_a_zero_embedding_is_scored_not_divided_by():
    embeddings, is_same = noisy_pairs(20)
    embeddings[0] = 0
    assert evaluate_pairs(embeddings, is_same).scores[0] == 0.0


def test_errors_say_what_is_wrong():
    embeddings, is_same = noisy_pairs(20)
    broken = embeddings.copy()
    broken[3, 1], broken[7] = np.nan, np.inf
    with pytest.raises(VerificationError, match="2 of 40 embeddings hold NaN or infinity"):
        evaluate_pairs(broken, is_same)
    with pytest.raises(VerificationError, match=r"20 pairs need embeddings of shape \(40, D\).*got shape \(38, 16\)"):
        evaluate_pairs(embeddings[:-2], is_same)
    with pytest.raises(VerificationError, match="unknown protocol 'lfw'; there are insightface, exact"):
        evaluate_pairs(embeddings, is_same, protocol="lfw")
    with pytest.raises(VerificationError, match=r"num_folds must be in 1 .. 20"):
        evaluate_pairs(embeddings, is_same, num_folds=21)
    with pytest.raises(VerificationError, match="fars must lie between 0 and 1"):
        evaluate_pairs(embeddings, is_same, fars=(0.1, 1.0))
    with pytest.raises(VerificationError, match="N of 1 or more"):
        evaluate_pairs(embeddings[:0], [])


@pytest.mark.parametrize("seed", range(2))
def test_all_numbers_equal_an_independent_float64_restatement(seed):
    embeddings, is_same = noisy_pairs(120, seed=seed)
    other, other_same = noisy_pairs(50, seed=seed + 50)
    folds = np.random.default_rng(seed).permutation(np.arange(120) % 7)  # scattered, not contiguous
    scores = [oracle.cosine(*embeddings[i : i + 2]) for i in range(0, 240, 2)]
    distances = [2 - 2 * score for score in scores]
    development = ([2 - 2 * oracle.cosine(*other[i : i + 2]) for i in range(0, 100, 2)], other_same)
    grid = np.arange(0, 4, 0.01)
    fars = (0.4, 0.2)
    result = evaluate_pairs(embeddings, is_same, num_folds=7, folds=folds, fars=fars)
    assert result.fold_accuracies == pytest.approx(oracle.fold_accuracies(distances, is_same, folds, grid))
    view1 = evaluate_pairs(embeddings, is_same, num_folds=7, folds=folds, development=(other, other_same))
    assert view1.fold_accuracies == pytest.approx(oracle.fold_accuracies(distances, is_same, folds, grid, development))
    assert len(set(view1.fold_thresholds)) == 1
    exact = evaluate_pairs(other, other_same, num_folds=1, protocol="exact")
    chosen = evaluate_pairs(embeddings, is_same, num_folds=1, protocol="exact", development=(other, other_same))
    assert chosen.fold_thresholds == exact.fold_thresholds
    assert chosen.accuracy == np.mean((result.scores >= chosen.fold_thresholds[0]) == is_same)
    ones = [1.0] * 120
    np.testing.assert_allclose(result.scores, scores, rtol=0, atol=1e-12)
    assert result.auc == pytest.approx(oracle.auc(scores, is_same, ones), abs=1e-12)
    assert result.eer == pytest.approx(oracle.eer(scores, is_same, ones), abs=1e-12)
    for far in fars:
        assert result.tar_at_far[far] == pytest.approx(oracle.tar_at_far(scores, is_same, ones, far), abs=1e-12)


def test_folds_that_do_not_fit_are_refused():
    embeddings, is_same = noisy_pairs(20)
    for folds in ([0] * 19, [0] * 20, [0, 2] * 10):
        with pytest.raises(VerificationError, match=r"folds must be 20 numbers in 0 .. 1, each of them at least once"):
            evaluate_pairs(embeddings, is_same, num_folds=2, folds=np.array(folds))
