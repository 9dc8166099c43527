"""All pairs, block by block, against every pair at once; thresholds, bounds, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from eval import all_pairs, thresholds
from eval.all_pairs import accepted_impostors, count_scores
from eval.embedding_set import EmbeddingSet, save_embedding_set
from eval.operating_point import main
from eval.pair_metrics import VerificationError, evaluate_pairs
from eval.thresholds import clopper_pearson_upper, points_of_embeddings, points_of_pairs
from tests.eval.test_pair_metrics import noisy_pairs


def labelled(num_identities: int = 40, num_each: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(num_identities), num_each))
    embeddings = rng.normal(size=(num_identities, 16))[labels] + 0.8 * rng.normal(size=(len(labels), 16))
    return (embeddings * rng.uniform(1, 30, (len(labels), 1))).astype(np.float32), labels


def every_pair(embeddings, labels):
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    first, second = np.triu_indices(len(labels), 1)
    return (
        np.einsum("ij,ij->i", unit[first], unit[second]),
        labels[first] == labels[second],
        labels[first],
        labels[second],
    )


@pytest.mark.parametrize("block", [7, 64, 2048])
def test_blocks_count_every_pair_once(block, monkeypatch):
    monkeypatch.setattr(all_pairs, "_BLOCK", block)
    embeddings, labels = labelled()
    scores, same, first, second = every_pair(embeddings, labels)
    counts = count_scores(embeddings, labels)
    assert (counts.num_same, counts.num_different, counts.num_identities) == (same.sum(), (~same).sum(), 40)
    edges = np.linspace(-1, 1, 201)
    for found, wanted in ((counts.same, scores[same]), (counts.different, scores[~same])):
        coarse = found.reshape(200, -1).sum(axis=1)
        assert np.abs(coarse - np.histogram(wanted, edges)[0]).sum() <= 2  # a score on an edge may fall to either side
    threshold, accepted, accepted_same = counts.threshold(50)
    assert accepted <= 50
    assert accepted == (~same & (scores >= threshold)).sum()
    assert accepted_same == (same & (scores >= threshold)).sum()
    assert (scores[~same] >= threshold - 3 / all_pairs.NUM_BINS).sum() > 50  # no lower edge would do
    found_pairs = accepted_impostors(embeddings, labels, threshold)
    chosen = ~same & (scores >= threshold)
    expected = np.sort(np.column_stack([first[chosen], second[chosen]]), axis=1)
    assert sorted(map(tuple, np.sort(found_pairs, axis=1))) == sorted(map(tuple, expected))


def test_operating_points_of_embeddings():
    embeddings, labels = labelled()
    scores, same, *_ = every_pair(embeddings, labels)
    (point,) = points_of_embeddings(embeddings, labels, [1e-2], "made up", confidence=0.9)
    accepted = scores >= point.threshold
    assert point.num_accepted == (accepted & ~same).sum() == round(point.far * point.num_different)
    assert 0 < point.far <= 1e-2
    assert point.tar == pytest.approx((accepted & same).sum() / same.sum())
    assert point.far < point.far_upper < 1.5 * point.far
    # what two people have in common is in all their pairs, so the bound over people is the wider one here
    assert point.far_upper_identities > point.far_upper


def test_a_tar_without_same_pairs_is_said_to_be_unmeasurable(tmp_path, capsys):
    embeddings, _ = labelled()
    names = np.array([str(i) for i in range(160)])
    alone = EmbeddingSet(embeddings, names, np.arange(160), names, np.full(160, np.nan, np.float32))
    save_embedding_set(tmp_path / "alone.npz", alone)
    assert main([str(tmp_path / "alone.npz"), "--far", "1e-2", "--json"]) == 0
    printed = capsys.readouterr()
    (point,) = json.loads(printed.out)["points"]
    assert (point["tar"], point["num_same"], point["num_different"]) == (None, 0, 160 * 159 // 2)
    assert "TAR cannot be measured: there are no same pairs, no identity has two embeddings" in printed.err
    assert "nan" not in printed.err


def test_verified_pairs_of_one_kind_have_no_threshold_and_that_is_said(tmp_path, capsys):
    protocols = {"insightface": {"num_same": 0, "num_different": 5000}}
    write_results(tmp_path / "results.json", protocols=protocols, operating_points={})
    assert main([str(tmp_path / "results.json"), "--far", "0.1"]) == 2
    assert "lfw has no same pairs, so verification measured no TAR" in capsys.readouterr().err


def test_the_bound_over_identities_equals_its_definition(monkeypatch):
    monkeypatch.setattr(thresholds, "_RESAMPLES", 20)
    embeddings, labels = labelled(12, 3)
    scores, same, first, second = every_pair(embeddings, labels)
    (point,) = points_of_embeddings(embeddings, labels, [0.05], "made up", confidence=0.8)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(20):
        drawn = rng.multinomial(12, np.full(12, 1 / 12))
        weights = np.where(same, 0, drawn[first] * drawn[second])
        rates.append((weights * (scores >= point.threshold)).sum() / weights.sum())
    assert point.far_upper_identities == pytest.approx(np.quantile(rates, 0.8), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 100), (3, 3000), (30, 3000), (99, 100)])
def test_the_upper_bound_is_where_so_few_successes_become_unlikely(successes, trials):
    upper = clopper_pearson_upper(successes, trials, 0.95)
    assert binom.cdf(successes, trials, upper) == pytest.approx(0.05, rel=1e-6)
    assert clopper_pearson_upper(trials, trials, 0.95) == 1.0


def test_the_rule_of_three():
    assert clopper_pearson_upper(0, 3000, 0.95) == pytest.approx(1 - 0.05 ** (1 / 3000))  # about 3 / 3000


def test_operating_points_of_pairs_are_those_of_the_result():
    embeddings, is_same = noisy_pairs(3000, seed=5)
    result = evaluate_pairs(embeddings, is_same)
    points = points_of_pairs(result, is_same, "lfw")
    assert list(points) == ["0.1", "0.01"]
    for far, point in points.items():
        impostors = result.scores[~is_same]
        assert point["threshold"] == result.threshold_at_far[float(far)]
        assert point["num_accepted"] == (impostors >= point["threshold"]).sum() <= float(far) * len(impostors)
        assert point["tar"] == result.tar_at_far[float(far)]
        assert point["far"] < point["far_upper"]


def write_results(path, **changes):
    embeddings, is_same = noisy_pairs(3000, seed=5)
    result = evaluate_pairs(embeddings, is_same)
    target = {
        "protocols": {"insightface": result.to_dict()},
        "operating_points": points_of_pairs(result, is_same, "lfw"),
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"targets": {"lfw": target}}))
    return result


def test_the_command_on_a_run(tmp_path, capsys):
    result = write_results(tmp_path / "run" / "verification" / "results.json")
    assert main([str(tmp_path / "run"), "--far", "1e-2", "--json"]) == 0
    printed = capsys.readouterr()
    (point,) = json.loads(printed.out)["points"]
    assert point["threshold"] == result.threshold_at_far[0.01]
    assert f"FAR 0.01, lfw: threshold {point['threshold']:.6f}" in printed.err


def test_the_command_on_embeddings(tmp_path, capsys):
    embeddings, labels = labelled()
    names = np.array([str(i) for i in range(160)])
    people = np.array([f"p{i}" for i in range(40)])
    made = EmbeddingSet(embeddings, names, labels, people, np.full(160, np.nan, np.float32))
    save_embedding_set(tmp_path / "faces.npz", made)
    assert main([str(tmp_path / "faces.npz"), "--far", "1e-2,1e-3"]) == 0
    printed = capsys.readouterr().out
    assert "FAR 0.001, all pairs of 160 embeddings of faces.npz: threshold" in printed
    assert "of 12,480 different pairs), at most" in printed
    assert main([str(tmp_path / "faces.npz"), "--far", "1e-5"]) == 2
    assert "FAR 1e-05 needs 1,000,000 different pairs (10 accepted ones)" in capsys.readouterr().err
    save_embedding_set(tmp_path / "nobody.npz", replace(made, labels=np.full(160, -1)))
    assert main([str(tmp_path / "nobody.npz"), "--far", "1e-2"]) == 2
    assert "0 of 160 embeddings have an identity" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["--far", "1e-3"], {}, "FAR 0.001 needs 10,000 different pairs (10 accepted ones), lfw has 1,4"),
        (["--far", "0.02"], {}, "lfw was not measured at FAR 0.02; there are 0.1, 0.01. Verify again with --fars 0.02"),
        (["--far", "0.1", "--target", "cfp"], {}, "holds no set 'cfp'; there are lfw"),
        (["--far", "2"], {}, "--far '2': needs numbers between 0 and 1"),
        (["--far", "0.1"], {"operating_points": {"0.1": {"threshold": "x"}}}, "operating points of lfw are damaged"),
        (["--far", "0.1"], {"operating_points": 3}, "lfw has no operating points; verify the model again"),
    ],
)
def test_what_the_command_refuses(tmp_path, capsys, arguments, changes, message):
    write_results(tmp_path / "results.json", **changes)
    assert main([str(tmp_path / "results.json"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_no_results_are_refused(tmp_path, capsys):
    for text in ("", "[]", '{"targets": {}}', '{"targets": {"a": 1}}', "{" * 100_000):
        (tmp_path / "results.json").write_text(text)
        assert main([str(tmp_path), "--far", "0.1"]) == 2
        assert "not the results.json that eval.verification writes" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--far", "0.1"]) == 2


def test_embeddings_that_cannot_be_paired_are_refused():
    embeddings, labels = labelled(4, 2)
    with pytest.raises(VerificationError, match="1 of 8 embeddings have no identity"):
        count_scores(embeddings, np.array([-1, 1, 1, 2, 2, 3, 3, 0]))
    with pytest.raises(VerificationError, match="at least two identities"):
        count_scores(embeddings, np.zeros(8, dtype=np.int64))
    embeddings[2, 0] = np.nan
    with pytest.raises(VerificationError, match="1 of 8 embeddings hold NaN"):
        count_scores(embeddings, labels)


def test_a_network_that_gives_every_face_one_embedding_gets_a_threshold_that_no_pair_reaches():
    rng = np.random.default_rng(0)
    embeddings = np.tile(rng.normal(size=(1, 5)), (40, 1)).astype(np.float32)
    labels = np.arange(40) % 10
    (point,) = points_of_embeddings(embeddings, labels, [0.1], "x")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert (point.far, point.num_accepted, point.tar) == (0.0, 0, 0.0)
    assert not (unit @ unit.T >= point.threshold).any()


def test_a_bound_says_that_it_takes_pairs_as_independent(capsys, tmp_path):
    embeddings, labels = noisy_pairs(200)
    result = evaluate_pairs(embeddings, labels)
    document = {"targets": {"made": {
        "protocols": {"insightface": result.to_dict()},
        "operating_points": points_of_pairs(result, labels, "made"),
    }}}  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(document))
    assert main([str(tmp_path), "--far", "0.1"]) == 0
    assert "with 95% confidence if pairs were independent\n" in capsys.readouterr().out
