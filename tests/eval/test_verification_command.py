"""`python -m eval.verification` from the outside: table, JSON, plots, refused input, torchrun."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones import build_backbone
from eval import verification
from eval.pairs import load_pairs, write_bin
from eval.saved_scores import read_scores
from eval.verification_tables import one_kind_folds
from tests.eval.faces import jpeg_pairs, memory_pairs, write_lfw_images
from tests.eval.pair_folders import write_rfw_lists
from tests.ranks import REPO_ROOT
from utils.images import encode_jpeg


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the run `run` (a tiny net, 32 numbers) and the sets small.bin (24 pairs) and other.bin."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps({"network": "tiny", "embedding_size": 32, "name": "a run"}))
    (folder / "run" / "metrics.jsonl").write_text("")
    torch.manual_seed(0)
    torch.save(build_backbone("tiny", embedding_size=32).state_dict(), folder / "run" / "model.pt")
    for name, count in (("small", 24), ("other", 3)):
        write_bin(folder / f"{name}.bin", *jpeg_pairs(count))
    return folder


@pytest.fixture(autouse=True)
def same_threads():
    """The command takes all cores for itself; the tests that follow should not."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def command(place, *arguments):
    return ["--model", str(place / "run"), "--data", str(place), "--device", "cpu", *arguments]


def test_two_targets(place, tmp_path, capsys):
    assert verification.main(command(place, "--targets", "small,other", "--out", str(tmp_path), "--no-flip")) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    small = results["targets"]["small"]
    assert small["data_sha256"] == load_pairs("small", place).data_sha256
    assert f"sha256 {small['data_sha256']}" in printed
    exact = small["protocols"]["exact"]
    assert f"accuracy (exact      ) {exact['accuracy']:8.2%} +- {exact['accuracy_std']:.2%}" in printed
    assert "TAR at FAR 0.1     n/a (needs 100 different pairs)" in printed
    assert "other: 2 same + 1 different pairs, 3 folds" in printed
    assert results["flip"] is False
    assert results["command"].startswith("python -m eval.verification --model")
    assert len(results["weights_sha256"]) == 64
    assert not torch.distributed.is_initialized()
    for name in ("small", "other"):
        for kind in ("roc", "scores"):
            assert (tmp_path / f"{name}_{kind}.png").read_bytes()[:4] == b"\x89PNG"
        assert len(read_scores(tmp_path, name)[0]) == results["targets"][name]["num_pairs"]
        assert (tmp_path / f"{name}_hardest.json").is_file()
    assert sorted(path.name for path in tmp_path.glob("table*")) == ["table.csv", "table.md"]


def test_numbers_equal_those_that_training_would_log(place, tmp_path):
    verification.main(command(place, "--targets", "small", "--out", str(tmp_path)))
    printed = json.loads((tmp_path / "results.json").read_text())["targets"]["small"]["protocols"]
    model = build_backbone("tiny", embedding_size=32).to(memory_format=torch.channels_last)
    model.load_state_dict(torch.load(place / "run" / "model.pt", weights_only=True))
    for result in verification.verify(model, load_pairs("small", place)):
        assert printed[result.protocol] == result.to_dict()


def test_a_run_folder_gets_its_results_and_its_report(place):
    assert verification.main(command(place, "--targets", "other")) == 0
    assert (place / "run" / "verification" / "results.json").is_file()
    page = (place / "run" / "report.html").read_text()
    assert "Verification of the saved model" in page
    assert "other: ROC, true over false accept rate" in page
    assert f"scores of {place / 'run' / 'model.pt'}" in page


def test_two_sets_of_one_name_do_not_replace_each_other(place, tmp_path):
    (place / "again").mkdir(exist_ok=True)
    write_bin(place / "again" / "other.bin", *jpeg_pairs(4))
    verification.main(command(place, "--targets", "other,again/other.bin", "--out", str(tmp_path)))
    targets = json.loads((tmp_path / "results.json").read_text())["targets"]
    assert {name: target["num_pairs"] for name, target in targets.items()} == {"other": 3, "other-2": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "small,lfw"], "error: lfw: neither lfw.bin nor lfw/pairs.txt is in"),
        (["--targets", ","], "error: --targets ',' names no set"),
        (["--targets", "small", "--network", "r18"], "not the weights of network 'r18'"),
        (["--targets", "small", "--fars", "0.1,x"], "error: --fars '0.1,x': needs numbers between 0 and 1"),
        (["--targets", "small", "--bootstrap", "5", "--bootstrap-unit", "identities"], "small: who is on its images"),
        (["--targets", "small", "--bootstrap", "-5"], "--bootstrap must be 0 or more"),
        (["--targets", "small", "--batch-size", "0"], "batch_size must be at least 1"),
    ],
)
def test_refused_input_ends_with_one_line(place, capsys, arguments, message):
    assert verification.main(command(place, *arguments)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "small:" not in printed.out  # nothing is embedded before everything has been found
    assert not torch.distributed.is_initialized()


def test_a_one_sided_set_has_accuracy_but_no_roc(place, tmp_path, capsys):
    image = encode_jpeg(np.asarray(memory_pairs(1).images[0]))
    write_bin(tmp_path / "twins.bin", [image] * 8, [True] * 4)
    assert verification.main(command(place, "--targets", str(tmp_path / "twins.bin"), "--out", str(tmp_path))) == 0
    printed = capsys.readouterr().out
    assert "100.00% +- 0.00%" in printed
    assert "AUC n/a   EER n/a" in printed
    assert (tmp_path / "twins_roc.png").is_file()


def test_folds_of_one_kind_are_warned_of(place, tmp_path, capsys):
    images, flags = jpeg_pairs(24)
    pairs = sorted(range(24), key=lambda pair: not flags[pair])  # all same pairs before all different ones
    sorted_images = [images[2 * pair + side] for pair in pairs for side in (0, 1)]
    write_bin(tmp_path / "sorted.bin", sorted_images, sorted(flags, reverse=True))
    targets = f"small,{tmp_path / 'sorted.bin'}"
    assert verification.main(command(place, "--targets", targets, "--out", str(tmp_path / "out"))) == 0
    small, lonely = capsys.readouterr().out.split("\nsorted: ")
    assert "warning" not in small
    assert "warning: 10 of 10 folds hold pairs of one kind only" in lonely
    found = json.loads((tmp_path / "out" / "results.json").read_text())["targets"]
    assert [found[name]["folds_of_one_kind"] for name in ("small", "sorted")] == [0, 10]
    listed = replace(load_pairs("small", place), folds=np.where(flags, 0, 1), num_folds=2)
    assert one_kind_folds(listed) == 2


def test_rfw_with_intervals_and_one_json_object(place, tmp_path, capsys, monkeypatch):
    for plot in ("plot_roc", "plot_scores"):  # ten pictures take longer than all the rest
        monkeypatch.setattr(f"eval.plots.{plot}", lambda *_: None)
    groups = ("African", "Asian", "Caucasian", "Indian")
    write_rfw_lists(tmp_path / "rfw", groups)
    write_bin(tmp_path / "small.bin", *jpeg_pairs(24))
    arguments = [
        "--model",
        str(place / "run"),
        "--data",
        str(tmp_path),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    options = ["--fars", "0.5", "--bootstrap", "50", "--confidence", "0.9", "--seed", "3", "--json"]
    assert verification.main([*arguments, "--targets", "rfw,small", *options]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report == json.loads((tmp_path / "out" / "results.json").read_text())
    names = [f"rfw_{group.lower()}" for group in groups]
    assert list(report["targets"]) == [*names, "small"]
    for protocol in ("insightface", "exact"):
        accuracy = [report["targets"][name]["protocols"][protocol]["accuracy"] for name in (*names, "small")]
        rfw = report["rfw"][protocol]
        assert rfw["mean"] == pytest.approx(np.mean(accuracy[:4]))
        assert rfw["std"] == pytest.approx(np.std(accuracy[:4]))
        assert rfw["spread"] == pytest.approx(max(accuracy[:4]) - min(accuracy[:4]))
        assert report["mean"][protocol] == pytest.approx((rfw["mean"] + accuracy[4]) / 2)  # four groups are one set
        low, high = report["targets"]["small"]["bootstrap"][protocol]["accuracy"]
        assert low <= accuracy[4] <= high
    assert report["mean"]["num_sets"] == 2
    assert report["targets"]["small"]["unsupported_fars"] == {"0.5": 20}
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["set"] for row in rows] == [
        *names, "small", "rfw: mean", "rfw: std", "rfw: spread (max - min)", "mean of 2 sets"
    ]  # fmt: skip
    assert float(rows[4]["accuracy (exact)"]) == report["targets"]["small"]["protocols"]["exact"]["accuracy"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.strip() in printed.err
    assert len({len(line) for line in table.splitlines()}) == 1
    assert "90% intervals, 50 resamples of 10 folds, seed 3" in printed.err


def test_view_1_on_the_command_line(place, tmp_path, capsys):
    write_lfw_images(tmp_path / "lfw" / "images", {"Ann": 3, "Bob": 3, "Cyd": 2})
    (tmp_path / "lfw" / "pairsDevTrain.txt").write_text("2\nAnn\t1\t2\nAnn\t2\t3\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n")
    (tmp_path / "lfw" / "pairsDevTest.txt").write_text("1\nCyd\t1\t2\nCyd\t1\tBob\t3\n")
    arguments = ["--model", str(place / "run"), "--data", str(tmp_path), "--device", "cpu", "--out", str(tmp_path)]
    assert verification.main([*arguments, "--targets", "lfw_view1", "--bootstrap", "20"]) == 2
    assert "lfw_view1: has one fold, and resampling it says nothing" in capsys.readouterr().err
    assert verification.main([*arguments, "--targets", "lfw_view1"]) == 0
    assert "thresholds chosen on 4 other pairs" in capsys.readouterr().out


@pytest.mark.slow
def test_under_torchrun_the_numbers_are_the_same(place, tmp_path):
    verification.main(command(place, "--targets", "small", "--out", str(tmp_path / "one")))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = command(place, "--targets", "small", "--out", str(tmp_path / "two"))
    subprocess.run(
        [*launcher, "-m", "eval.verification", *arguments],
        check=True,
        cwd=REPO_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
    )
    one, two = (
        json.loads((tmp_path / name / "results.json").read_text())["targets"]["small"]["protocols"]["exact"]
        for name in ("one", "two")
    )
    assert one["fold_accuracies"] == two["fold_accuracies"]
    assert one["auc"] == pytest.approx(two["auc"])
