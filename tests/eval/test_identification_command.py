"""`python -m eval.identification` from the outside: known answers, images, saved embeddings, ranks, refused input."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from eval import identification
from eval.embedding_set import load_embedding_set
from eval.similarity_blocks import has_faiss
from tests.eval.gallery_place import make_run, save_set, write_faces
from tests.ranks import REPO_ROOT


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """20 identities of 3 images and 30 of one; every second image of the first ones is of the next identity."""
    folder = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    identities = [f"p{n:02d}" for n in range(20) for _ in range(3)] + [f"q{n:02d}" for n in range(30)]
    numbers = np.array([n for n in range(20) for _ in range(3)] + [20 + n for n in range(30)])
    shown = numbers.copy()
    shown[1:60:3] = (shown[1:60:3] + 1) % 20  # the second image of p00 shows p01, and so on
    embeddings = np.eye(50)[shown] + 0.01 * random.standard_normal((90, 50))
    names = [f"{name}/{index}.jpg" for index, name in enumerate(identities)]
    return save_set(folder / "people.npz", embeddings, names, identities)


def run(capsys, *arguments):
    status = identification.main(["--json", "--device", "cpu", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, json.loads(captured.out), captured.err


def test_known_answers(people, capsys, tmp_path):
    status, facts, words = run(capsys, "--data", people, "--fpirs", "0.4", "--out", tmp_path / "out")
    assert status == 0
    assert (facts["num_enrolled_images"], facts["num_identities"], facts["num_mated"]) == (20, 20, 40)
    assert facts["num_non_mated"] == 30
    assert facts["rank_rates"]["1"] == 0.5  # of the two probes of an identity one shows another
    assert facts["tpir_at_fpir"] == {"0.4": 0.5}
    assert facts["tpir_curve"]["tpir"][0] == 0.5
    assert "rank-1 50.00%" in words
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cmc.png", "results.json", "tpir.png"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rank_rates"] == facts["rank_rates"]


def test_several_enrolled_images_as_one_entry_or_as_many(people, capsys):
    _, mean, _ = run(capsys, "--data", people, "--enroll", "2", "--ranks", "1,2")
    assert (mean["num_entries"], mean["num_enrolled_images"], mean["num_mated"]) == (20, 40, 20)
    _, each, _ = run(capsys, "--data", people, "--enroll", "2", "--ranks", "1,2", "--entries", "each")
    assert (each["num_entries"], each["num_mated"]) == (40, 20)
    # an identity's third image meets its own first, and the second image of the one before it, which shows it too
    assert 0 < each["rank_rates"]["1"] < 1
    assert each["rank_rates"]["2"] == 1.0


def test_impostors_among_those_who_could_be_enrolled(people, capsys):
    _, facts, _ = run(capsys, "--data", people, "--impostors", "0.5")
    assert (facts["num_identities"], facts["num_mated"], facts["num_non_mated"]) == (10, 20, 60)


@pytest.mark.skipif(not has_faiss(), reason="faiss-cpu is optional")
def test_faiss_gives_the_same(people, capsys):
    both = [run(capsys, "--data", people, "--fpirs", "0.4,0.9", "--backend", b)[1] for b in ("torch", "faiss")]
    assert both[0]["rank_rates"] == both[1]["rank_rates"]
    assert both[0]["tpir_at_fpir"] == both[1]["tpir_at_fpir"]


def test_a_gallery_and_probes(people, capsys, tmp_path):
    gallery = save_set(tmp_path / "g.npz", np.eye(50)[[3, 7]], ["x", "y"], ["p03", "p07"])
    strangers = save_set(tmp_path / "p.npz", np.eye(50)[[7, 9, 3, 8]], list("abcd"), ["p07", "", "p07", "q00"])
    status, facts, _ = run(capsys, "--gallery", gallery, "--probes", strangers, "--ranks", "1,2")
    assert status == 0
    assert (facts["num_mated"], facts["num_non_mated"], facts["num_unknown_probes"]) == (2, 2, 1)
    assert facts["rank_rates"] == {"1": 0.5, "2": 1.0}


def test_images(capsys, tmp_path):
    make_run(tmp_path / "run")
    files = {f"p{i}/{shot}.jpg": (i, shot) for i in range(6) for shot in range(3)}
    write_faces(tmp_path / "faces", files)
    saved = tmp_path / "faces.npz"
    _, facts, _ = run(capsys, "--data", tmp_path / "faces", "--model", tmp_path / "run", "--save", saved)
    assert (facts["num_entries"], facts["num_mated"]) == (6, 12)
    assert facts["embeddings"][0]["flip"] is True
    assert load_embedding_set(saved).names.tolist() == sorted(files)
    _, again, _ = run(capsys, "--data", saved)
    assert again["rank_rates"] == facts["rank_rates"]
    write_faces(tmp_path / "faces", {"p0/9.jpg": (0, 9)}, 60, 40)
    status, refused, _ = run(capsys, "--data", tmp_path / "faces", "--model", tmp_path / "run")
    assert (status, "p0/9.jpg" in refused["error"]) == (2, True)
    status, _, _ = run(capsys, "--data", tmp_path / "faces", "--model", tmp_path / "run", "--resize")
    assert status == 0


@pytest.mark.slow
def test_under_torchrun_the_numbers_are_the_same(capsys, tmp_path):
    make_run(tmp_path / "run")
    write_faces(tmp_path / "faces", {f"p{i}/{shot}.jpg": (i, shot) for i in range(7) for shot in range(2)})
    arguments = ["--data", str(tmp_path / "faces"), "--model", str(tmp_path / "run"), "--device", "cpu", "--json"]
    _, one, _ = run(capsys, *arguments)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, "-m", "eval.identification", *arguments],
        check=True,
        cwd=REPO_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
    )
    two = json.loads(done.stdout)  # one object: one rank speaks
    assert two["rank_rates"] == one["rank_rates"]
    assert two["num_mated"] == 7


def test_refused(people, capsys, tmp_path):
    flat = write_faces(tmp_path / "flat", {"a.jpg": (0, 0)})
    cases = [
        ((), "give --data LOCATION, or --gallery LOCATION and --probes LOCATION"),
        (("--gallery", people), "give --data LOCATION"),
        (("--data", people, "--probes", people), "give --data LOCATION"),
        (("--data", people, "--enroll", "0"), "--enroll is 1 or more"),
        (("--data", people, "--enroll", "5"), "nobody can be enrolled"),
        (("--data", people, "--impostors", "1"), r"--impostors in [0, 1)"),
        (("--data", people, "--fpirs", "2"), "--fpirs between 0 and 1"),
        (("--data", people, "--ranks", "0"), "--ranks are 1 or more"),
        (("--gallery", people, "--probes", people, "--save", "x.npz"), "--save keeps the embeddings of --data"),
        (("--data", flat), "these are images: give --model"),
        (("--data", flat, "--model", "x"), "no image has an identity"),
        (("--data", tmp_path / "gone"), "no such file or folder"),
        (("--data", people.parent, "--model", "x"), "no image in it"),
    ]
    for arguments, words in cases:
        status, facts, _ = run(capsys, *arguments)
        assert status == 2
        assert words in facts["error"]
    with pytest.raises(SystemExit) as stopped:
        identification.main(["--data", "x", "--ranks", "1,two"])
    assert stopped.value.code == 2
    assert "'1,two' is no list of numbers" in capsys.readouterr().err
