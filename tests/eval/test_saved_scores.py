"""Scores and hardest pairs: what is written is what was scored, and nothing else is read."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from eval.saved_scores import SavedScoresError, read_hardest, read_scores, saved_names, write_scores
from tests.eval.faces import memory_pairs
from tests.eval.runs import noisy_result
from tests.ranks import REPO_ROOT
from utils.images import decode_image, encode_jpeg

PAIRS = memory_pairs(120)
RESULT = noisy_result(PAIRS, 1.5)


@pytest.fixture
def place(tmp_path):
    write_scores(tmp_path, "memory", PAIRS, RESULT, num_hardest=5, origin="best.pt")
    return tmp_path


def hardest_document(place):
    return json.loads((place / "memory_hardest.json").read_text())


def test_scores_come_back_as_they_were(place):
    assert saved_names(place) == ["memory"]
    scores, is_same = read_scores(place, "memory")
    np.testing.assert_array_equal(scores, RESULT.scores)
    np.testing.assert_array_equal(is_same, PAIRS.is_same)
    assert sorted(path.name for path in place.iterdir()) == ["memory_hardest.json", "memory_scores.npz"]
    with np.load(place / "memory_scores.npz", allow_pickle=False) as loaded:  # any program can read it
        np.testing.assert_array_equal(loaded["scores"], RESULT.scores)
        assert loaded["is_same"].dtype == bool


def test_the_hardest_pairs_are_the_worst_errors_by_brute_force(place):
    scores, is_same = read_scores(place, "memory")
    hardest = read_hardest(place, "memory", scores, is_same)
    threshold = np.mean(RESULT.fold_thresholds)
    wanted = {
        "false_accept": sorted(
            (i for i in range(120) if not is_same[i] and scores[i] >= threshold), key=lambda i: -scores[i]
        ),
        "false_reject": sorted(
            (i for i in range(120) if is_same[i] and scores[i] < threshold), key=lambda i: scores[i]
        ),
    }
    assert min(map(len, wanted.values())) > 5, "this set must have more errors than are kept"
    assert hardest.threshold == threshold
    assert hardest.origin == "best.pt"
    for kind, pairs in wanted.items():
        assert [pair.pair for pair in hardest.pairs if pair.kind == kind] == pairs[:5]
        assert hardest.num_errors[kind] == len(pairs)
    for pair in hardest.pairs:
        assert pair.names == ("", "")
        for index, image in zip((2 * pair.pair, 2 * pair.pair + 1), pair.images, strict=True):
            assert len(image) < 10_000
            assert np.abs(decode_image(image).astype(int) - PAIRS.images[index]).mean() < 6


def test_names_of_the_images_where_the_set_has_them(tmp_path):
    named = replace(PAIRS, names=[f"Ann/{index}.jpg" for index in range(240)])
    write_scores(tmp_path, "memory", named, RESULT)
    hardest = read_hardest(tmp_path, "memory", *read_scores(tmp_path, "memory"))
    assert {pair.names for pair in hardest.pairs} == {
        (f"Ann/{2 * pair.pair}.jpg", f"Ann/{2 * pair.pair + 1}.jpg") for pair in hardest.pairs
    }


def test_a_set_without_errors_and_none_asked_for(tmp_path):
    perfect = replace(RESULT, scores=np.where(PAIRS.is_same, 1.0, -1.0))
    write_scores(tmp_path, "memory", PAIRS, perfect)
    hardest = read_hardest(tmp_path, "memory", *read_scores(tmp_path, "memory"))
    assert hardest.pairs == ()
    assert hardest.num_errors == {"false_accept": 0, "false_reject": 0}
    write_scores(tmp_path, "memory", PAIRS, RESULT, num_hardest=0)
    assert read_hardest(tmp_path, "memory", *read_scores(tmp_path, "memory")).pairs == ()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "", "a\0b", "é" * 100])
def test_names_lead_nowhere(tmp_path, name):
    with pytest.raises(SavedScoresError, match="cannot have files of its own: allowed are 1 to 199 bytes"):
        write_scores(tmp_path, name, PAIRS, RESULT)
    with pytest.raises(SavedScoresError, match="cannot have files of its own"):
        read_scores(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_scores_of_other_pairs_are_not_written(tmp_path):
    with pytest.raises(SavedScoresError, match=r"x: 40 pairs, but scores of shape \(120,\)"):
        write_scores(tmp_path, "x", memory_pairs(40), RESULT)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": np.zeros(3)}, "no scores of pairs .*is_same"),
        ({"scores": np.zeros(3), "is_same": np.zeros(2, bool)}, "3 scores and 2 flags"),
        ({"scores": np.zeros(0), "is_same": np.zeros(0, bool)}, "0 scores and 0 flags"),
        ({"scores": np.zeros(3, "f4"), "is_same": np.zeros(3, bool)}, "expected float64"),
        ({"scores": np.zeros((3, 1)), "is_same": np.zeros(3, bool)}, r"expected float64 of shape \(N,\)"),
        ({"scores": np.zeros(3), "is_same": np.zeros(3, "u1")}, "expected bool"),
        ({"scores": np.full(3, np.nan), "is_same": np.zeros(3, bool)}, "no cosines"),
        ({"scores": np.full(3, 1.5), "is_same": np.zeros(3, bool)}, "no cosines"),
        ({"scores": np.array([{}], object), "is_same": np.zeros(1, bool)}, "no scores of pairs"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x_scores.npz", **arrays)
    with pytest.raises(SavedScoresError, match=message):
        read_scores(tmp_path, "x")


@pytest.mark.parametrize("text", [b"{'descr': (", b"{'shape': (3L,), 'descr': '", b"\0", b"{'descr': '<f8'}"])
def test_array_headers_that_are_none(tmp_path, text):
    """numpy reads such a header once more, as Python 2 may have written it, and has errors of its own for that."""
    with zipfile.ZipFile(tmp_path / "x_scores.npz", "w") as archive:
        archive.writestr("scores.npy", b"\x93NUMPY\x01\x00v\x00" + text.ljust(118))
    with pytest.raises(SavedScoresError, match=r"x_scores\.npz: no scores of pairs"):
        read_scores(tmp_path, "x")


def test_a_file_that_is_cut_off(place):
    whole = (place / "memory_scores.npz").read_bytes()
    for length in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        (place / "memory_scores.npz").write_bytes(whole[:length])
        with pytest.raises(SavedScoresError, match=r"memory_scores\.npz: no scores of pairs"):
            read_scores(place, "memory")


def test_a_small_file_takes_little_memory(tmp_path):
    """A header of 10^12 scores over no bytes, and a zip that unpacks to a thousand times its size."""
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(
        117
    )
    with zipfile.ZipFile(tmp_path / "x_scores.npz", "w") as archive:
        archive.writestr("scores.npy", header + b"\n")
        archive.writestr("is_same.npy", header + b"\n")
    with pytest.raises(SavedScoresError, match=r"shape \(1000000000000,\) in 128 bytes"):
        read_scores(tmp_path, "x")
    np.savez_compressed(tmp_path / "x_scores.npz", scores=np.zeros(1_000_000), is_same=np.zeros(1_000_000, bool))
    with pytest.raises(SavedScoresError, match="is compressed"):
        read_scores(tmp_path, "x")
    (tmp_path / "x_scores.npz").write_bytes(b"no zip")
    with pytest.raises(SavedScoresError, match="not a zip file"):
        read_scores(tmp_path, "x")
    with pytest.raises(SavedScoresError, match="there is no such file"):
        read_scores(tmp_path, "y")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(pairs=[d["pairs"][0]] * 201), "at most 200"),
        (lambda d: d["pairs"][0].update(cosine=0.123), "belongs to other scores"),
        (lambda d: d["pairs"][0].update(kind="false_reject"), "belongs to other scores"),
        (lambda d: d["pairs"][0].update(pair=120), "pair 120 of kind"),
        (lambda d: d["pairs"][0].update(pair=True), "pair True of kind"),
        (lambda d: d["pairs"][0].update(names=["a"]), "two names"),
        (lambda d: d["pairs"][0].update(names=["a", "b" * 301]), "at most 300 characters"),
        (lambda d: d["pairs"][0].update(images=["PHN2Zz4=", "PHN2Zz4="]), "no JPEG"),
        (lambda d: d["pairs"][0].update(images=["'><script>", ""]), "not base64"),
        (lambda d: d.update(threshold="nan"), "cannot be"),
        (lambda d: d.update(num_errors={"false_accept": 121, "false_reject": 0}), "cannot be"),
        (lambda d: d.pop("pairs"), "KeyError"),
    ],
)
def test_other_lists_of_pairs_are_refused(place, change, message):
    document = hardest_document(place)
    change(document)
    (place / "memory_hardest.json").write_text(json.dumps(document))
    with pytest.raises(SavedScoresError, match=f"memory_hardest.json: no list of hardest pairs .*{message}"):
        read_hardest(place, "memory", *read_scores(place, "memory"))


def test_a_picture_of_another_size_is_refused(place):
    document = hardest_document(place)
    large = encode_jpeg(np.zeros((8, 600, 3), np.uint8))
    document["pairs"][0]["images"][0] = base64.b64encode(large).decode()
    (place / "memory_hardest.json").write_text(json.dumps(document))
    with pytest.raises(SavedScoresError, match="no JPEG of at most 512 pixels a side"):
        read_hardest(place, "memory", *read_scores(place, "memory"))


def test_a_kill_between_the_two_files_leaves_no_errors_of_other_scores(place):
    code = f"""
import os, signal
import eval.saved_scores as saved
from tests.eval.test_saved_scores import PAIRS, noisy_result
saved.write_text_whole = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
saved.write_scores({str(place)!r}, "memory", PAIRS, noisy_result(PAIRS, 0.5, seed=1))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    scores, is_same = read_scores(place, "memory")
    assert not np.array_equal(scores, RESULT.scores)
    assert read_hardest(place, "memory", scores, is_same) is None
