"""Figures of embeddings against brute force and closed forms, and the command."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from onnx import TensorProto

from backbones import build_backbone
from eval import embedding_geometry
from eval.embedding_geometry import (
    alignment,
    angle_statistics,
    cosine_to_own_mean,
    effective_dimension,
    norm_correlations,
    normalised,
    uniformity,
)
from eval.embedding_quality import laplacian_variance, main
from eval.embedding_set import EmbeddingSet, save_embedding_set
from eval.pair_metrics import VerificationError
from tests.eval.faces import face, write_lfw_images
from tests.eval.test_onnx_embedder import PIXELS, means


def made_up(num_identities: int = 9, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(num_identities), rng.integers(1, 5, num_identities)))
    return normalised(rng.normal(size=(num_identities, 6))[labels] + 0.5 * rng.normal(size=(len(labels), 6))), labels


def degrees(first, second):
    return np.degrees(np.arccos(np.dot(first, second) / np.linalg.norm(first) / np.linalg.norm(second)))


@pytest.mark.parametrize("block", [2, 4, 2048])
def test_angles_equal_brute_force(block, monkeypatch):
    monkeypatch.setattr(embedding_geometry, "_BLOCK", block)
    unit, labels = made_up()
    found = angle_statistics(unit, labels)
    intra = [
        degrees(row, unit[(labels == label) & (np.arange(len(labels)) != i)].sum(axis=0))
        for i, (row, label) in enumerate(zip(unit, labels, strict=True))
        if (labels == label).sum() > 1
    ]
    means = [unit[labels == label].mean(axis=0) for label in range(9)]
    inter = [degrees(a, b) for a, b in combinations(means, 2)]
    nearest = [min(degrees(a, b) for j, b in enumerate(means) if j != i) for i, a in enumerate(means)]
    for kind, values in (("intra", intra), ("inter", inter), ("nearest_other", nearest)):
        assert found[kind]["count"] == len(values)
        assert found[kind]["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        lower, upper = np.percentile(values, 50, method="lower"), np.percentile(values, 50, method="higher")
        assert lower - 0.002 <= found[kind]["p50"] <= upper + 0.002


def test_an_image_alone_of_its_identity_has_no_intra_angle():
    unit = np.eye(3)[[0, 0, 1]]
    assert cosine_to_own_mean(unit, np.array([0, 0, 1])) == pytest.approx([1, 1, np.nan], nan_ok=True)
    found = angle_statistics(unit[[0, 2]], np.array([0, 1]))
    assert found["intra"] is None
    assert found["inter"]["mean"] == pytest.approx(90)
    assert angle_statistics(unit[:2], np.array([0, 0]))["nearest_other"] is None


@pytest.mark.parametrize("used", [1, 3, 8])
def test_embeddings_spread_evenly_over_k_directions_have_dimension_k(used):
    unit = np.concatenate([np.eye(8)[:used], -np.eye(8)[:used]])
    found = effective_dimension(unit)
    assert found["participation_ratio"] == pytest.approx(used)
    assert found["entropy_dimension"] == pytest.approx(used)
    assert sum(found["eigenvalues"]) == pytest.approx(1)


def test_the_dimension_of_an_uneven_spectrum_and_of_a_point():
    unit = np.array([[1.0, 0], [-1, 0], [1, 0], [-1, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])  # shares 3/4 and 1/4
    found = effective_dimension(unit)
    assert found["participation_ratio"] == pytest.approx(1 / (9 / 16 + 1 / 16))
    assert found["entropy_dimension"] == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert effective_dimension(np.eye(3)[[0, 0]])["participation_ratio"] is None


def test_alignment_and_uniformity_equal_their_definitions(monkeypatch):
    unit, labels = made_up()
    monkeypatch.setattr(embedding_geometry, "_BLOCK", 5)
    pairs = list(combinations(range(len(unit)), 2))
    squared = {pair: float(((unit[pair[0]] - unit[pair[1]]) ** 2).sum()) for pair in pairs}
    same = [value for (i, j), value in squared.items() if labels[i] == labels[j]]
    assert alignment(unit, labels) == pytest.approx(np.mean(same))
    assert alignment(unit[:1], labels[:1]) is None
    expected = np.log(np.mean([np.exp(-2 * value) for value in squared.values()]))
    assert uniformity(unit) == {"value": pytest.approx(expected), "num_embeddings": len(unit)}
    monkeypatch.setattr(embedding_geometry, "UNIFORMITY_SAMPLE", 10)
    assert uniformity(unit)["num_embeddings"] == 10
    assert uniformity(unit) == uniformity(unit)


def test_rank_correlations_know_order_constants_and_gaps():
    norms = np.array([1.0, 2, 3, 4])
    others = {"up": norms**3, "down": -norms, "same": np.ones(4), "gaps": np.array([np.nan, 5, np.nan, 6])}
    found = norm_correlations(norms, others)
    assert [found[name]["spearman"] for name in others] == [pytest.approx(1), pytest.approx(-1), None, None]
    assert found["gaps"]["num_embeddings"] == 2


def test_a_blurred_image_is_less_sharp_and_an_even_one_not_at_all():
    image = face(1)
    assert laplacian_variance(image) > laplacian_variance(image // 2 + 60) > 0
    assert laplacian_variance(np.full((112, 112, 3), 9, np.uint8)) == 0


def test_rows_of_no_direction_are_refused():
    with pytest.raises(VerificationError, match="2 of 3 embeddings are NaN, infinite or 0"):
        normalised(np.array([[0.0, 0], [np.nan, 1], [1, 1]]))


@pytest.fixture
def place(tmp_path):
    write_lfw_images(tmp_path / "faces", {"Ann": 3, "Bob": 3, "Cyd": 2})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"network": "tiny", "embedding_size": 32}))
    torch.manual_seed(0)
    torch.save(build_backbone("tiny", embedding_size=32).state_dict(), tmp_path / "run" / "model.pt")
    return tmp_path


def test_the_command_on_images_and_on_saved_embeddings(place, capsys):
    arguments = [str(place / "faces"), "--model", str(place / "run"), "--device", "cpu", "--out", str(place / "out")]
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_embeddings"], figures["num_identities"]) == (8, 3)
    assert figures["norm_correlations"]["sharpness"]["num_embeddings"] == 8
    assert figures["norm_correlations"]["detector_score"]["spearman"] is None
    assert json.loads((place / "out" / "embedding_quality.json").read_text()) == figures
    for name in ("norms", "angles", "spectrum"):
        assert (place / "out" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    rng = np.random.default_rng(0)
    names = np.array(["Ann/Ann_0001.jpg", "Bob/Bob_0002.jpg", "elsewhere.jpg"])
    people = np.array(["Ann", "Bob"])
    made = EmbeddingSet(
        rng.normal(size=(3, 4)).astype(np.float32), names, np.array([0, 1, -1]), people, np.ones(3, np.float32)
    )
    save_embedding_set(place / "saved.npz", made)
    assert main([str(place / "saved.npz"), "--images", str(place / "faces")]) == 0
    printed = capsys.readouterr().out
    assert "3 embeddings of 2 identities, 1 of nobody known" in printed
    assert "rank correlation with sharpness: n/a (2 embeddings)" in printed


def test_embeddings_of_length_1_tell_nothing_by_their_norms(place, capsys):
    unit = normalised(np.random.default_rng(0).normal(size=(6, 4))).astype(np.float32)
    scores = np.linspace(0, 1, 6, dtype=np.float32)
    names = np.array([f"{i}.jpg" for i in range(6)])
    for name, rows in (("unit", unit), ("given", unit * (1 + scores[:, None]))):
        made = EmbeddingSet(rows, names, np.arange(6) % 2, np.array(["Ann", "Bob"]), scores)
        save_embedding_set(place / f"{name}.npz", made)
        assert main([str(place / f"{name}.npz")]) == 0
        printed = capsys.readouterr().out
        assert ("all norms are alike" in printed) is (name == "unit")
        assert f"detector score: {'n/a' if name == 'unit' else '+1.000'} (6 embeddings)" in printed


def test_a_model_file_that_normalises_is_refused(place, capsys):
    (place / "unit.onnx").write_bytes(means(TensorProto.UINT8, PIXELS, {"embeddings_normalized": "true"}))
    (place / "plain.onnx").write_bytes(means(TensorProto.UINT8, PIXELS))
    arguments = [str(place / "faces"), "--device", "cpu", "--model"]
    assert main([*arguments, str(place / "unit.onnx")]) == 2
    assert "unit.onnx: its embeddings already have length 1, so their norms tell nothing" in capsys.readouterr().err
    assert main([*arguments, str(place / "plain.onnx")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["faces"], "faces: images need --model"),
        (["saved.npz", "--model", "run"], "saved embeddings need no --model"),
        (["saved.npz"], "no such file"),
        (["faces", "--model", "run", "--images", "faces"], "--images is for saved embeddings"),
        (["nowhere", "--model", "run"], "nowhere: no such file or folder"),
    ],
)
def test_what_the_command_refuses(place, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(place)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
