"""The report of one run: what is in it, that it needs nothing else, and what a damaged run folder gets told."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from eval.report import ReportError, main, read_metrics, write_report
from tests.eval.pages import Page
from tests.eval.runs import SHA, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", "<run> & co", noise=1.5)


def test_the_page_holds_everything(run: Path) -> None:
    assert write_report(run) == run / "report.html"
    page = Page(run / "report.html")
    for wanted in (
        *("<run> & co", "head cosface", "40 steps", "at step 20", "Verification during training", "TAR at FAR 0.1"),
        *("Verification of the saved model", "240 in 10 folds", "Loss", "Learning rate", "Verification accuracy"),
        *("memory: ROC, true over false accept rate", "120 same", "120 different", "threshold"),
        *("False accepts: two people taken for one", "False rejects: one person taken for two", "cosine 0."),
        *("images per second, median 51", "data wait, worst line 1.0%", "2.00 GB", "0:00:39 h"),
        *("training data content_sha256", "verification set memory, sha256", SHA[:16]),
        *("python train.py configs/<run> & co", "Train, at commit c0ffee", "python -m tools.export_onnx"),
        *("python -m eval.verification --model <run> & co", "python -m eval.report", "2 hashed, listed in run.json"),
        *("head_options", "Reproducibility: environment", "devices.a CPU"),
    ):
        assert wanted in page.text, wanted
    assert f'title="{SHA}"' in page.source
    assert re.search(r"<br>Somebody_<wbr>\d+/<wbr>Somebody_<wbr>With_<wbr>A_<wbr>Name_<wbr>\d+\.jpg<br>", page.source)
    assert "Loss scale" not in page.text, "1 throughout: nothing was scaled"
    assert sorted(path.name for path in run.iterdir() if "partial" in path.name) == []


def test_the_page_fetches_and_runs_nothing_else(run: Path) -> None:
    page = Page(write_report(run))
    assert not re.search(r"https?://|@import|url\(|<iframe| style=| on\w+=", page.source)
    for link in page.links():
        assert link.startswith(("data:image/jpeg;base64,", "#")) or link == "data:,", link[:80]
    policy = next(a["content"] for _, a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'; img-src data:;" in policy
    assert "unsafe" not in policy
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for link in page.links() if link.startswith("#")} <= anchors
    assert len(anchors) == sum("id" in attributes for _, attributes in page.tags), "an id is given twice"


def test_structure_for_readers_of_every_kind(run: Path) -> None:
    page = Page(write_report(run))
    assert [tag for tag, _ in page.all("header", "nav", "main")] == ["header", "nav", "main"]
    first = next(attributes for tag, attributes in page.tags if tag == "a")
    assert first == {"class": "skip", "href": "#main"}
    levels = [int(tag[1]) for tag, _ in page.all("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tables = page.all("table")
    assert len(page.all("caption")) == len(tables) > 4
    assert {attributes.get("scope") for _, attributes in page.all("th")} == {"col", "row"}
    assert all(attributes.get("alt") for _, attributes in page.all("img"))
    alts = [attributes["alt"] for _, attributes in page.all("img")]
    assert len(set(alts)) == len(alts)
    for _, attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
    assert page.source.startswith('<!doctype html>\n<html lang="en">')


def test_where_the_run_comes_from_and_what_changed_when_it_went_on(run: Path) -> None:
    origin = json.loads((run / "run.json").read_text())
    changed = ["code: <b>.py differs", "config: lr 1 -> 2"]
    origin["changes"] = [{"command": "python train.py x resume=True", "changed": changed}]
    (run / "run.json").write_text(json.dumps(origin))
    source = write_report(run).read_text()
    assert "# python train.py x resume=True\ncode: &lt;b&gt;.py differs\nconfig: lr 1 -&gt; 2" in source
    (run / "run.json").write_text(json.dumps({"ranks": 2, "fingerprint": 3}))
    assert "Reproducibility" not in write_report(run).read_text()


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"source": "configs/a run.py", "val_targets": ["lfw"]}))
    page = Page(write_report(tmp_path))
    train, verify = "python train.py 'configs/a run.py'", f"python -m eval.verification --model {tmp_path} --data"
    for text, command in (
        ("no step logged yet", ""),
        ("No verification was logged during training", train),
        ("The saved weights have not been verified.", verify),
        ("Nothing was logged yet", train),
        ("No scores of pairs are saved here.", verify),
        ("No hardest pairs are saved here.", verify),
        ("No training step was logged.", train),
        ("There is no run.json", train),
        ("Neither run.json nor a verification tells hashes of the data.", train),
    ):
        assert re.search(re.escape(text) + ".*" + re.escape(command), page.text), text


def test_a_damaged_score_file_costs_its_part_and_not_the_page(run: Path) -> None:
    (run / "verification" / "memory_hardest.json").write_text("{")
    page = Page(write_report(run))
    assert "memory: ROC" in page.text
    assert "memory_hardest.json: no list of hardest pairs" in page.text
    (run / "verification" / "memory_scores.npz").write_bytes(b"PK")
    page = Page(write_report(run))
    assert "ROC, true" not in page.text
    assert "memory_scores.npz: no scores of pairs" in page.text


def test_a_set_of_one_kind_has_scores_but_no_curve(run: Path) -> None:
    import numpy as np

    np.savez(run / "verification" / "twins_scores.npz", scores=np.linspace(0.5, 1, 9), is_same=np.ones(9, bool))
    page = Page(write_report(run))
    assert "twins: ROC" not in page.text
    assert "9 same" in page.text


def test_folds_of_one_kind_are_warned_of(run: Path) -> None:
    assert "folds hold pairs of one kind only" not in Page(write_report(run)).text
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lonely = [{**line, "folds_of_one_kind": 7} if line["kind"] == "verification" else line for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lonely))
    results = json.loads((run / "verification" / "results.json").read_text())
    results["targets"]["memory"]["folds_of_one_kind"] = 6
    (run / "verification" / "results.json").write_text(json.dumps(results))
    text = Page(write_report(run)).text
    for count in (6, 7):
        assert f"memory: warning: {count} folds hold pairs of one kind only: their accuracy is that of one" in text
    results["targets"]["memory"]["folds_of_one_kind"] = ["x"]
    (run / "verification" / "results.json").write_text(json.dumps(results))
    assert "warning: 6" not in Page(write_report(run)).text


def test_thousands_of_lines_make_no_page_of_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_lines=5_000)
    page = write_report(run)
    assert page.stat().st_size < 300_000
    assert "are cut into 120 equal runs of neighbours" in page.read_text()


def test_a_torn_last_line_is_left_out_but_no_other(run: Path) -> None:
    path = run / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"kind": "train", "st')
    assert len(read_metrics(path)[0]) == 40
    path.write_text("{broken\n" + whole)
    with pytest.raises(ReportError, match=r"metrics\.jsonl: line 1 is not JSON: '\{broken'"):
        write_report(run)


def test_other_folders_are_refused(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ReportError, match=r"a run folder holds config\.json and metrics\.jsonl; here: nothing"):
        write_report(empty)
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    (run / "config.json").write_text("{")
    assert main([str(run)]) == 2


def test_a_classification_shows_its_tests_and_no_verification(tmp_path: Path) -> None:
    lines = [
        {"kind": "classification", "dataset": name, "step": step, "epoch": step // 10, "num_images": 40, "error": error,
         "top1": 1 - error, "top5": None, "mean_class_accuracy": 0.5, "class_margin": 61.25, "sample_margin_mean": 0.5,
         "sample_margin_min": -0.25, "prototype_norm_ratio": 1.5}
        for name, step, error in (("test", 0, 0.9), ("test", 10, 0.125), ("test", 20, 0.25), ("train", 20, 0.0))
    ]  # fmt: skip
    lines.append(
        {"kind": "classification", "dataset": "test", "step": 30, "error": "<b>", "top1": [], "class_margin": 1e99}
    )
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"name": "digits", "task": "classification", "head": "softmax"}))
    page = write_report(tmp_path).read_text()
    assert "Best: top-1 87.50% at step 10" in page
    assert "87.50% at step 10</td>" in page
    assert "Classification by the prototypes, without margin" in page
    assert all(title in page for title in ("Test error", "Class margin: smallest angle", "Mean sample margin"))
    assert "<i>odd" not in page
    assert f"python -m eval.classification {tmp_path}" in page
    assert not any(
        title in page
        for title in ("python -m eval.verification", "Hardest pairs", "No verification was logged", "ROC and scores")
    )
