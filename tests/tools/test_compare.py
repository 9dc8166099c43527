"""python -m tools.compare: the cosine, and a verdict only where a threshold was given or measured for these weights."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from tests.eval.faces import face, pattern_embedder
from tests.tools.alignment.pictures import DETECTOR, lfw_faces, needs_detector, paste, similarity
from tools import compare
from utils.images import decode_image, encode_jpeg

WEIGHTS = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_bytes(b"weights")
    for name, one in (("a", face(0, 0)), ("b", face(0, 1)), ("c", face(1, 0)), ("wide", face(0)[:50])):
        (tmp_path / f"{name}.jpg").write_bytes(encode_jpeg(one))
    monkeypatch.setattr(compare, "load_embedder", lambda *_, **__: pattern_embedder)
    return tmp_path


ODD = {"threshold_at_far": {"a": 1, "0.1": "b", "0.001": 7, "0.01": None}}


def measured(folder, thresholds=None, **changes):
    protocols = {
        "insightface": {"threshold_at_far": thresholds or {"0.001": 0.5, "0.0001": None}, "num_different": 3000}
    }
    small = {"exact": {"threshold_at_far": {"0.001": 0.9, "0.1": 0.2}, "num_different": 100}}
    results = {"weights_sha256": WEIGHTS, "flip": True, "precision": "fp32",
               "targets": {"lfw": {"protocols": protocols}, "own": {"protocols": small}}, **changes}  # fmt: skip
    (folder / "run" / "verification").mkdir(exist_ok=True)
    (folder / "run" / "verification" / "results.json").write_text(json.dumps(results))


def said(folder, capsys, *arguments, first="a", second="b"):
    paths = [str(folder / f"{name}.jpg") for name in (first, second)]
    status = compare.main([*paths, "--model", str(folder / "run"), "--device", "cpu", *arguments])
    captured = capsys.readouterr()
    return status, captured.out + ("" if "--json" in arguments else captured.err)


def test_the_cosine_is_that_of_the_summed_embeddings(run_folder, capsys):
    status, words = said(run_folder, capsys, "--json")
    assert status == 0
    facts = json.loads(words)
    pixels = torch.from_numpy(np.stack([decode_image((run_folder / f"{name}.jpg").read_bytes()) for name in "ab"]))
    both = (pattern_embedder(pixels) + pattern_embedder(pixels.flip(2))).double()
    assert facts["cosine"] == pytest.approx(float(torch.nn.functional.cosine_similarity(*both, dim=0)), abs=1e-6)
    assert facts["is_same"] is None
    assert "no such file" in facts["no_verdict_because"]


def test_no_verdict_without_a_measurement(run_folder, capsys):
    status, words = said(run_folder, capsys)
    assert status == 0
    assert "no verdict:" in words
    assert f"python -m eval.verification --model {run_folder / 'run'} --data DIR --targets lfw --out" in words
    assert said(run_folder, capsys, "--far", "1e-3")[0] == 1  # asked for, and there is none


def test_a_measured_threshold(run_folder, capsys):
    measured(run_folder)
    status, words = said(run_folder, capsys)
    assert status == 0
    assert (
        "the same person: reaches 0.5000, the threshold at FAR 0.001 on lfw (3000 pairs of different people)" in words
    )
    assert "warning" not in words
    status, words = said(run_folder, capsys, "--far", "0.1", second="c")
    assert status == 0
    assert "0.2000, the threshold at FAR 0.1 on own" in words
    assert "FAR 0.001 on own" in said(run_folder, capsys, "--target", "own")[1]
    words = said(run_folder, capsys, "--no-flip", "--precision", "bf16")[1]
    assert "warning: measured with flip on, compared with flip off" in words
    assert "warning: measured with precision fp32, compared with precision bf16" in words
    measured(run_folder, flip=False)
    assert '"flip": false' in said(run_folder, capsys, "--json")[1]  # as it was measured, where nothing is said


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        (["--far", "1e-4"], {}, "no threshold at FAR 0.0001; it has them at: 0.001, 0.1"),
        (["--target", "cfp"], {}, "no target 'cfp'; it has lfw, own"),
        (["--far", "1e-3"], {"weights_sha256": "0" * 64}, "measured with other weights"),
        (["--far", "1e-3"], {"targets": []}, "holds no `targets`"),
        (["--far", "1e-3"], {"targets": {"x": 1, "y": {"protocols": {"e": ODD}}}}, "has them at: none"),
    ],
)  # fmt: skip
def test_measurements_that_do_not_fit(run_folder, capsys, arguments, changes, words):
    measured(run_folder, **changes)
    status, text = said(run_folder, capsys, *arguments)
    assert status == 1
    assert words in text
    assert "cosine" in text


def test_a_given_threshold(run_folder, capsys):
    assert "different people: is below the threshold 0.9999" in said(run_folder, capsys, "--threshold", "0.9999")[1]
    assert "the same person: reaches the threshold -1.0000" in said(run_folder, capsys, "--threshold", "-1")[1]
    with pytest.raises(SystemExit):
        said(run_folder, capsys, "--threshold", "2")


def test_images_that_cannot_be_compared(run_folder, capsys):
    assert "add --align --detector MODEL.onnx" in said(run_folder, capsys, second="wide")[1]
    assert "cannot be read" in said(run_folder, capsys, second="gone")[1]
    assert "needs points" in said(run_folder, capsys, "--align")[1]
    (run_folder / "black.jpg").write_bytes(encode_jpeg(np.full((112, 112, 3), 120, np.uint8)))
    status, words = said(run_folder, capsys, first="black")
    assert (status, "an embedding is zero" in words) == (2, True)


@needs_detector
def test_photographs(run_folder, capsys):
    crop, other = lfw_faces(2)
    two = paste(crop, similarity(3, 0, (250, 250)), 500, 900)
    patch = paste(other, similarity(1.5, 0, (700, 250)), 500, 900, 0)
    for name, one in (
        ("a", paste(crop, similarity(2, 15, (250, 200)), 450, 500)),
        ("b", np.where(patch > 0, patch, two)),
    ):
        (run_folder / f"{name}.jpg").write_bytes(encode_jpeg(one))
    status, words = said(run_folder, capsys, "--align", "--detector", str(DETECTOR), "--threshold", "0.5")
    assert status == 0
    assert "the same person" in words
    assert "shows 2 faces; the one compared is the largest" in words
