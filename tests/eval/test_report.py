"""The run report: what is in it, that it needs nothing else, and what a damaged run folder gets told."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from eval.charts import Series, line_chart, ticks
from eval.report import ReportError, main, read_metrics, write_report

SHA = "a1" * 32


class Checker(HTMLParser):
    """Balanced tags, and everything that would be fetched."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.links, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_where_the_run_comes_from_and_what_changed_when_it_went_on(run):
    fingerprint = {
        "code": {"commit": "c0ffee", "tree_sha256": SHA, "files": {"train.py": "1", "<b>.py": "2"}},
        "data": {"kind": "records", "content_sha256": SHA},
        "environment": {"torch": "2.13", "threads": 4},
    }
    changed = [{"command": "python train.py x resume=True", "changed": ["code: <b>.py differs", "config: lr 1 -> 2"]}]
    (run / "run.json").write_text(json.dumps({"ranks": 2, "fingerprint": fingerprint, "changes": changed}))
    page = write_report(run).read_text()
    checker = Checker()
    checker.feed(page)
    text = " ".join(checker.texts)
    assert checker.open == []
    for wanted in ("Reproducibility", SHA, "2 hashed, listed in run.json", "code: <b>.py differs\nconfig: lr 1 -> 2"):
        assert wanted in text
    assert text.count("content_sha256") == 1
    (run / "run.json").write_text(json.dumps({"ranks": 2, "fingerprint": 3}))
    assert "Reproducibility" not in write_report(run).read_text()


@pytest.fixture
def run(tmp_path):
    """A run folder after 100 steps and two verifications, with a hostile name in it."""
    config = {"name": "<run> & co", "source": "configs/a run.py", "head": "svsoftmax", "network": "small", "lr": 0.1}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rec": "data/x", "val_targets": ["lfw"], "seed": 7}))
    (tmp_path / "run.json").write_text(json.dumps({"command": "python train.py configs/a", "commit": "c0ffee"}))
    lines = [{"kind": "train", "step": s, "loss": 10 / s, "lr": 0.1, "images_per_second": None} for s in range(1, 101)]
    for step, accuracy in ((50, 0.9375), (100, 0.9125)):
        for protocol in ("insightface", "exact"):
            scores = {"accuracy": accuracy, "accuracy_std": 0.01, "auc": 0.97, "eer": None}
            tars = {"tar_at_far": {"0.1": 0.8, "0.001": None}, "data_sha256": SHA, "flip": True}
            lines.append(
                {"kind": "verification", "dataset": "lfw", "protocol": protocol, "step": step, **scores, **tars}
            )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_the_page_holds_everything_and_fetches_nothing(run):
    (run / "verification").mkdir()
    (run / "verification" / "lfw_roc.png").write_bytes(b"\x89PNG roc")
    target = {"data_sha256": SHA, "num_pairs": 6000, "num_folds": 10, "protocols": {"exact": {"accuracy": 0.9}}}
    saved = {"targets": {"lfw": target}, "command": "python -m eval.verification --model it", "flip": True}
    (run / "verification" / "results.json").write_text(json.dumps(saved))
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert [link for link in checker.links if not link.startswith("data:image/png;base64,")] == []
    assert len(checker.links) == 1
    assert not re.search(r"https?://|@import|url\(|<script", page)
    text = " ".join(checker.texts)
    for wanted in (
        *("<run> & co", "head svsoftmax", "100 steps", "lfw 93.75% at step 50", "91.25% ± 1.00%", "97.000%"),
        *("TAR at FAR 0.1", "80.00%", "n/a", SHA[:16], "Loss", "Learning rate", "Verification accuracy"),
        *("python train.py configs/a", "# at commit c0ffee", "python -m eval.verification --model it"),
        *("python -m tools.export_onnx", "6000 in 10 folds", "configs/a run.py"),
    ):
        assert wanted in text, wanted
    assert f'title="{SHA}"' in page
    assert "Images per second" not in text  # only nulls were logged
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert sorted(p.name for p in run.iterdir() if "partial" in p.name) == []


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    page = write_report(tmp_path).read_text()
    assert "no step logged yet" in page
    assert "Curves" not in page
    assert "python -m eval.verification --model" in page


def test_a_torn_last_line_is_left_out_but_no_other(run):
    path = run / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"kind": "train", "st')
    assert len(read_metrics(path)[0]) == 100
    path.write_text("{broken\n" + whole)
    with pytest.raises(ReportError, match=r"metrics\.jsonl: line 1 is not JSON: '\{broken'"):
        write_report(run)


def test_other_folders_are_refused(tmp_path, run, capsys):
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


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 10, [0, 5, 10]),
        (0, 8, [0, 2, 4, 6, 8]),
        (0.912, 0.947, [0.91, 0.92, 0.93, 0.94, 0.95]),
        (-3, 3, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (5.0, 5.0), (-2.0, -2.0), (1e-5, 1.0000000001e-5), (0, 1e9)])
def test_ticks_of_narrow_and_wide_ranges(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8


def test_charts_scale_their_points_into_the_drawing():
    chart = line_chart("a <b>", [Series("x", [(0, 0), (10, 4)]), Series("empty", [])])
    assert "a &lt;b&gt;" in chart
    first, last = re.search(r'points="([^"]+)"', chart)[1].split(" ")
    assert first == "48.0,178.0"  # left, bottom
    assert last == "348.0,10.0"  # right, top
    assert line_chart("none", [Series("empty", [])]) == ""
    assert "<circle" in line_chart("one point", [Series("x", [(3, 3)])])


def test_long_lines_are_averaged_not_cut():
    points = [(float(i), float(i % 2)) for i in range(30_000)]
    chart = line_chart("long", [Series("x", points)])
    drawn = re.search(r'points="([^"]+)"', chart)[1].split(" ")
    assert len(drawn) == 300
    assert len({point.split(",")[1] for point in drawn}) == 1  # every run of 100 averages to 0.5
