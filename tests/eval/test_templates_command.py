"""`python -m eval.templates` from the outside: known answers, images and saved embeddings, options, refused input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from eval import templates
from eval.embedding_set import load_embedding_set
from eval.ijb_metadata import find_ijb, read_ijb_images
from eval.template_metrics import pool_templates
from tests.eval.gallery_place import make_run, save_set
from tests.eval.ijb import GALLERIES, PROBES, TEMPLATES, write_ijb


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path):
    """A set with aligned images, and embeddings of the subjects: e_subject plus a little of noise."""
    made = write_ijb(tmp_path / "set", images=True)
    random = np.random.default_rng(0)
    embeddings = np.eye(8)[made.subjects] + 0.05 * random.standard_normal((len(made.names), 8))
    order = random.permutation(len(made.names))  # the file's order is not the lists'
    save_set(tmp_path / "e.npz", embeddings[order], [made.names[i][:-4] + ".png" for i in order], [""] * len(order))
    return tmp_path


def run(capsys, place, *arguments):
    status = templates.main(["--data", str(place / "set"), "--json", "--device", "cpu", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, json.loads(captured.out), captured.err


def test_known_answers(place, capsys):
    status, facts, words = run(capsys, place, "--embeddings", place / "e.npz", "--out", place / "out")
    assert status == 0
    assert (facts["set"], facts["num_images"], facts["num_templates"]) == ("ijbc", 28, len(TEMPLATES))
    verification = facts["verification"]
    assert (verification["num_same"], verification["num_different"]) == (10, 40)
    assert verification["tar_at_far"] == {**dict.fromkeys(("1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"))}
    assert set(verification["roc"]["tar"]) == {1.0}
    assert "TAR at FAR 1e-06  n/a (needs 10,000,000 different pairs)" in words
    parts = facts["identification"]
    assert list(parts) == ["G1", "G2", "G1+G2", "mean"]
    for name, gallery in zip(("G1", "G2"), GALLERIES, strict=True):
        subjects = {TEMPLATES[t][0] for t in gallery}
        mated = sum(TEMPLATES[t][0] in subjects for t in PROBES)
        assert (parts[name]["num_entries"], parts[name]["num_mated"]) == (len(gallery), mated)
        assert parts[name]["num_non_mated"] == 10 - mated
        assert parts[name]["rank_rates"]["1"] == 1.0
    assert (parts["G1+G2"]["num_mated"], parts["G1+G2"]["num_non_mated"]) == (10, 0)
    assert parts["mean"]["rank_rates"] == {"1": 1.0, "5": None, "10": None}
    assert parts["mean"]["tpir_at_fpir"] == {"0.01": None, "0.1": None}
    assert (place / "out" / "roc.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((place / "out" / "results.json").read_text())["identification"] == parts


def test_options_and_the_lists_order_reach_the_pooling(place, capsys, monkeypatch):
    calls = []

    def pool(embeddings, template_ids, media, **options):
        calls.append((embeddings, options))
        return pool_templates(embeddings, template_ids, media, **options)

    monkeypatch.setattr(templates, "pool_templates", pool)
    run(capsys, place, "--embeddings", place / "e.npz")
    run(capsys, place, "--embeddings", place / "e.npz", "--no-keep-norms", "--no-detector-score")
    (embeddings, first), (_, second) = calls
    files = find_ijb(place / "set")
    images = read_ijb_images(files.media, files.landmarks)
    np.testing.assert_array_equal(first["weights"], images.detector_scores)
    assert first["keep_norms"] is True
    assert second == {"weights": None, "keep_norms": False}
    subjects = [TEMPLATES[template][0] for template in images.templates.tolist()]
    assert embeddings.argmax(axis=1).tolist() == subjects


def test_images_are_embedded_once_and_saved(place, capsys):
    make_run(place / "run")
    model = ("--model", place / "run", "--batch-size", "8")
    saved = place / "saved.npz"
    status, facts, _ = run(capsys, place, "--images", place / "set" / "aligned", *model, "--save", saved)
    assert status == 0
    assert (facts["embeddings"]["flip"], len(facts["embeddings"]["weights_sha256"])) == (True, 64)
    kept = load_embedding_set(saved)
    assert kept.names.tolist()[:2] == ["1.jpg", "2.jpg"]
    assert kept.about["command"].startswith("python -m eval.templates --data")
    assert kept.detector_scores.min() >= 0.5
    _, again, _ = run(capsys, place, "--embeddings", saved)
    assert again["verification"] == facts["verification"]
    assert again["identification"] == facts["identification"]
    assert again["embeddings"]["weights_sha256"] == facts["embeddings"]["weights_sha256"]


def test_one_protocol_is_enough(place, capsys):
    (place / "set" / "meta" / "ijbc_template_pair_label.txt").unlink()
    assert "verification" not in run(capsys, place, "--embeddings", place / "e.npz", "--out", place / "out")[1]
    assert not (place / "out" / "roc.png").exists()
    (place / "set" / "meta" / "ijbc_1N_probe_mixed.csv").unlink()
    status, facts, _ = run(capsys, place, "--embeddings", place / "e.npz")
    assert (status, "holds neither pairs (1:1) nor galleries" in facts["error"]) == (2, True)


def test_refused_before_anything_is_embedded(place, capsys):
    aligned = place / "set" / "aligned"
    (aligned / "3.jpeg").unlink()
    cases = [
        (("--images", aligned), "needs --model"),
        (("--images", place / "no", "--model", "x"), "no such folder of aligned images; `python -m tools.align"),
        (
            ("--images", aligned, "--model", "x"),
            "1 of the 28 images of ijbc_face_tid_mid.txt are missing, the first is",
        ),
        (("--images", aligned, "--model", "x", "--save", "x.csv"), "kept in .npz or .parquet"),
        (("--images", aligned, "--model", "x", "--save", place / "no" / "x.npz"), "make it first"),
        (("--embeddings", place / "gone.npz"), "no such file"),
    ]
    for arguments, words in cases:
        status, facts, _ = run(capsys, place, *arguments)
        assert status == 2
        assert words in facts["error"]
    (aligned / "2.png").write_bytes(b"")
    assert "have 27 different names" in run(capsys, place, "--images", aligned, "--model", "x")[1]["error"]


def test_a_list_that_names_a_template_without_images(place, capsys):
    gallery = place / "set" / "meta" / "ijbc_1N_gallery_G2.csv"
    gallery.write_text(gallery.read_text() + "999,9,img/1.jpg\n")
    status, facts, _ = run(capsys, place, "--embeddings", place / "e.npz")
    assert status == 2
    assert "gallery G2: 1 entries name templates without an image, the first is 999" in facts["error"]
