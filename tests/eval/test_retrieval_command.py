"""`python -m eval.retrieval` from the outside: published sets' folders and names, saved embeddings, refused input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.io
import torch

from eval import retrieval
from tests.eval.gallery_place import make_run, save_set, write_faces


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(capsys, *arguments):
    status = retrieval.main(["--json", "--device", "cpu", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, json.loads(captured.out), captured.err


def angles(*degrees):
    """Unit vectors in the plane."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def market(tmp_path):
    """One query; in the order of similarity: own camera, junk, distractor, match, other, match."""
    names = [
        "0002_c1s1_000001_01.jpg",
        "-1_c2s1_000001_01.jpg",
        "0000_c3s1_000001_01.jpg",
        "0002_c2s1_000001_01.jpg",
        "0009_c2s1_000001_01.jpg",
        "0002_c5s1_000001_01.jpg",
    ]
    query = save_set(tmp_path / "query.npz", angles(0), ["query/0002_c1s1_000451_03.jpg"], [""])
    gallery = save_set(tmp_path / "gallery.npz", angles(1, 2, 3, 4, 5, 6), names, [""] * 6)
    return query, gallery


def test_market_rules_on_saved_embeddings(capsys, tmp_path):
    query, gallery = market(tmp_path)
    for layout in ("market1501", "dukemtmc"):
        status, facts, words = run(
            capsys,
            "--layout",
            layout,
            "--query",
            query,
            "--gallery",
            gallery,
            "--ranks",
            "1,2",
            "--out",
            tmp_path / "o",
        )
        assert status == 0
        assert facts["mean_ap"] == pytest.approx((1 / 2 + 2 / 4) / 2)  # of distractor, match, other, match
        assert facts["mean_ap_trapezoid"] == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
        assert facts["rank_rates"] == {"1": 0.0, "2": 1.0}
        assert (facts["num_entries"], facts["num_junk"], facts["num_queries"]) == (5, 1, 1)
        assert "mAP 50.00% (precisions at hits)   33.33% (trapezoids)" in words
        assert json.loads((tmp_path / "o" / "results.json").read_text())["mean_ap"] == facts["mean_ap"]


def test_market_folders_through_a_model(capsys, tmp_path):
    make_run(tmp_path / "run")
    home = tmp_path / "data" / "Market-1501-v15.09.15"
    write_faces(home / "query", {f"{i:04d}_c1s1_1_1.jpg": (i, 0) for i in (1, 2)}, 112, 64)
    gallery = {f"{i:04d}_c{c}s1_1_1.jpg": (i, c) for i in (1, 2, 3) for c in (1, 2)}
    write_faces(home / "bounding_box_test", gallery, 112, 64)
    common = ("--layout", "market1501", "--data", tmp_path / "data", "--model", tmp_path / "run")
    status, refused, _ = run(capsys, *common)
    assert status == 2
    assert "112x64" in refused["error"]
    status, facts, _ = run(capsys, *common, "--resize", "--save", tmp_path / "kept")
    assert status == 0
    assert (facts["num_queries"], facts["num_entries"]) == (2, 6)
    kept = tmp_path / "kept"
    again = run(capsys, "--layout", "market1501", "--query", kept / "query.npz", "--gallery", kept / "gallery.npz")[1]
    assert again["mean_ap"] == facts["mean_ap"]


def tinyface(tmp_path, name="Testing_Set"):
    home = tmp_path / "tiny" / name
    write_faces(home / "Probe", {f"{i}_1.jpg": (i, 0) for i in (4, 12)})
    write_faces(home / "Gallery_Match", {f"{i}_{n}.jpg": (i, n) for i in (4, 12) for n in (2, 3)})
    write_faces(home / "Gallery_Distractor", {f"d{n}.jpg": (50 + n, 0) for n in range(5)})
    return home


def test_tinyface_folders(capsys, tmp_path):
    make_run(tmp_path / "run")
    home = tinyface(tmp_path)
    scipy.io.savemat(home / "probe_img_ID_pairs.mat", {"probe_ids": np.array([[12.0], [4.0]])})
    scipy.io.savemat(home / "gallery_match_img_ID_pairs.mat", {"gallery_ids": np.array([[4], [4], [12], [12]])})
    common = ("--layout", "tinyface", "--data", tmp_path / "tiny", "--model", tmp_path / "run")
    status, facts, _ = run(capsys, *common, "--ranks", "1,5,20")
    assert status == 0
    assert (facts["num_queries"], facts["num_entries"], facts["num_junk"]) == (2, 9, 0)
    assert facts["rank_rates"]["20"] is None
    assert list(facts["embeddings"]) == ["query", "gallery", "distractors"]
    scipy.io.savemat(home / "probe_img_ID_pairs.mat", {"probe_ids": np.array([[12], [5]])})
    status, refused, _ = run(capsys, *common)
    assert status == 2
    assert "lists 2 images of 2 identities, the folder holds 2 of 2 by their names" in refused["error"]


def test_tinyface_saved(capsys, tmp_path):
    query = save_set(tmp_path / "q.npz", angles(0), ["Probe/7_1.jpg"], [""])
    gallery = save_set(tmp_path / "g.npz", angles(20, 5), ["7_2.jpg", "8_1.jpg"], ["", ""])
    distractors = save_set(tmp_path / "d.npz", angles(10), ["x.jpg"], [""])
    given = ("--layout", "tinyface", "--query", query, "--gallery", gallery)
    assert run(capsys, *given)[1]["mean_ap"] == pytest.approx(1 / 2)
    assert run(capsys, *given, "--distractors", distractors)[1]["mean_ap"] == pytest.approx(1 / 3)
    thin = save_set(tmp_path / "thin.npz", np.ones((1, 3)), ["x.jpg"], [""])
    assert "distractors have 3 numbers each and the gallery 2" in run(capsys, *given, "--distractors", thin)[1]["error"]


def test_plain_sets_meet_by_identity(capsys, tmp_path):
    query = save_set(tmp_path / "q.npz", angles(0, 90), ["a", "b"], ["ann", "bob"])
    gallery = save_set(tmp_path / "g.npz", angles(1, 2, 80), ["c", "d", "e"], ["", "ann", "bob"])
    _, facts, _ = run(capsys, "--query", query, "--gallery", gallery)
    assert facts["mean_ap"] == pytest.approx((1 / 2 + 1) / 2)
    assert facts["rank_rates"]["1"] == 0.5
    nameless = save_set(tmp_path / "n.npz", angles(0), ["a"], [""])
    status, refused, _ = run(capsys, "--query", nameless, "--gallery", gallery)
    assert status == 2
    assert "1 of 1 queries have no identity; with --layout plain it is the name" in refused["error"]


def test_refused(capsys, tmp_path):
    query, gallery = market(tmp_path)
    (tmp_path / "empty").mkdir()
    tinyface(tmp_path, ".")
    (tmp_path / "tiny" / "Probe" / "4_1.jpg").rename(tmp_path / "tiny" / "Probe" / "four.jpg")
    market_data = ("--layout", "market1501", "--data")
    cases = [
        ((), "give --data DIR of a published set, or --query and --gallery"),
        (("--data", tmp_path, "--query", query), "give --data DIR"),
        (("--query", query), "--query and --gallery are both needed; got --query"),
        (("--data", tmp_path), "--layout plain has no folder of its own"),
        ((*market_data, tmp_path / "gone"), "there is no folder"),
        (
            (*market_data, tmp_path / "empty"),
            "looked for bounding_box_train, query and bounding_box_test, found nothing",
        ),
        (("--layout", "tinyface", "--data", tmp_path / "empty"), "holds no Probe and no Gallery_Match"),
        (("--layout", "tinyface", "--data", tmp_path / "tiny", "--model", "x"), "'four.jpg' does not begin with"),
        (("--layout", "market1501", "--query", gallery, "--gallery", gallery), "2 of 6 queries have no identity"),
        (("--query", query, "--gallery", gallery, "--ranks", "0"), "--ranks are 1 or more"),
    ]
    for arguments, words in cases:
        status, facts, _ = run(capsys, *arguments)
        assert status == 2
        assert words in facts["error"]
