"""The page of several runs: what differs, what is shared, one figure for all, each run's own page beside it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from eval.report import ReportError, main, write_comparison
from eval.report_input import read_run
from eval.report_parts.differences import flat, split
from eval.saved_scores import read_scores, write_scores
from tests.eval.pages import Page
from tests.eval.runs import NUM_PAIRS, make_run, noisy_result, pairs_of_runs


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path / "a", "first", noise=0.8),
        make_run(tmp_path / "b", "second", noise=1.2, lr=0.2),
        make_run(tmp_path / "c", "third", noise=1.6, lr=0.3, head_options={"scale": 64.0, "margin": 0.2}),
    ]


def row(source: str, name: str) -> list[str]:
    """The texts of a table's row by its first cell."""
    found = re.search(rf'<tr><th scope="row">{re.escape(name)}</th>(.*?)</tr>', source)
    assert found, name
    return [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", found[1])]


def test_one_page_for_all_and_one_for_each(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*map(str, runs), "-o", str(tmp_path / "page.html")]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [*(str(run / "report.html") for run in runs), str(tmp_path / "page.html")]
    assert all(Path(path).is_file() for path in printed)
    assert main([*map(str, runs[:2]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["comparison"] == str(tmp_path / "compare.html"), "beside the first run by default"
    assert facts["pages"] == printed[:2]


def test_config_differences_and_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    source = write_comparison(runs, tmp_path / "page.html").read_text()
    differing, equal = source.split("Keys of the config that differ", 1)[1].split("<details>", 1)
    names = re.findall(r'<th scope="row">(.*?)</th>', differing)
    assert names == ["head_options.scale", "lr", "name", "source"]
    assert row(source, "lr") == ["not set", "0.2", "0.3"]
    assert row(source, "head_options.scale") == ["30.0", "30.0", "64.0"]
    assert ">head_options.margin</th><td>0.2</td>" in equal
    assert row(source, "losses/head.py") == ["0.8", "1.2", "1.6"]
    assert row(source, "training data images") == ["96", "96", "96", "equal"]


def test_runs_share_figures_and_look_the_same_in_each(runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_comparison(runs, tmp_path / "page.html"))
    figures = re.findall(r'<figure class="chart">.*?</figure>', page.source, flags=re.DOTALL)
    titles = [re.search(r"<figcaption>(.*?)</figcaption>", figure)[1] for figure in figures]  # type: ignore[index]
    assert {"Loss", "Verification accuracy on memory", "memory: ROC, true over false accept rate"} <= set(titles)
    for figure in figures:
        lines = re.findall(r'<g class="([^"]+)" data-run="(\d)">', figure)
        assert lines == [(f"c{i} d{i}", str(i)) for i in range(3)]
    assert page.source.count('<li data-run="1"') == len(figures) + 1, "in every legend, and among the switches"
    assert len(page.all("img")) <= 3 * 2 * 4 * 2


def test_errors_of_one_run_alone_by_brute_force(runs: list[Path], tmp_path: Path) -> None:
    source = write_comparison(runs, tmp_path / "page.html").read_text()
    wrong = []
    for run in runs:
        scores, is_same = read_scores(run / "verification", "memory")
        threshold = read_run(run).scored["memory"].hardest.threshold  # type: ignore[union-attr]
        wrong.append({i for i in range(NUM_PAIRS) if (scores[i] >= threshold) != is_same[i]})
    table = source.split("each run at its own threshold</caption>", 1)[1].split("</table>", 1)[0]
    cells = [re.findall(r"<td>(.*?)</td>", line) for line in table.split("\n")[1:5]]
    for index, (found, mine) in enumerate(zip(cells, wrong, strict=False)):
        others = set().union(*(pairs for i, pairs in enumerate(wrong) if i != index))
        assert (int(found[0]), int(found[3])) == (len(mine), len(mine - others))
    assert int(cells[3][0]) == len(wrong[0] & wrong[1] & wrong[2])
    assert len(wrong[2]) > len(wrong[0]) > 0


def test_sets_with_other_pairs_are_not_compared_pair_by_pair(runs: list[Path], tmp_path: Path) -> None:
    pairs = pairs_of_runs()
    turned = replace(pairs, images=pairs.images[::-1], is_same=pairs.is_same[::-1])
    write_scores(runs[0] / "verification", "memory", turned, noisy_result(turned, 1.0))
    assert "each run at its own threshold" not in write_comparison(runs, tmp_path / "page.html").read_text()


def test_runs_that_lack_parts_are_named(runs: list[Path], tmp_path: Path) -> None:
    for path in (runs[1] / "verification").iterdir():
        path.unlink()
    page = Page(write_comparison(runs, tmp_path / "page.html"))
    assert "second: No scores of pairs are saved here." in page.text
    assert "second: The saved weights have not been verified." in page.text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / place, "same") for place in ("a", "b")]
    page = Page(write_comparison(folders, tmp_path / "page.html"))
    assert page.text.startswith("Skip to the content 2 runs compared a, b")
    folders = [make_run(tmp_path / place / "run", "same") for place in ("c", "d")]
    page = Page(write_comparison(folders, tmp_path / "page.html"))
    assert f"same, {tmp_path}/c/run" in page.text


def test_words_before_damage(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ReportError, match="are the same run: name each run once"):
        write_comparison([runs[0], runs[0] / "." / "verification" / ".."], tmp_path / "page.html")
    assert main([*map(str, runs), "-o", str(tmp_path / "nowhere" / "page.html")]) == 2
    assert f"there is no folder {tmp_path}/nowhere; -o names the page" in capsys.readouterr().err
    assert main([*map(str, runs), "-o", str(tmp_path)]) == 2
    assert "is a folder; -o names the page" in capsys.readouterr().err
    assert main([str(runs[0]), str(tmp_path / "nothing"), "--json"]) == 2
    assert "there is no such folder" in json.loads(capsys.readouterr().out)["error"]
    assert not (runs[0] / "report.html").exists()


def test_a_run_folder_that_cannot_be_written_to(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs[1] / "report.html").mkdir()  # a folder in the way stands for a disk that is read-only
    assert main([*map(str, runs), "-o", str(tmp_path / "page.html")]) == 1
    printed = capsys.readouterr().out
    assert f"not written: {runs[1]}/report.html" in printed
    assert (tmp_path / "page.html").is_file()
    assert (runs[2] / "report.html").is_file()


def test_flat_and_split() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    differing, equal = split([{"a": 1, "b": True, "c": 1.0}, {"a": 1, "b": 1, "d": None}])
    assert equal == {"a": 1}
    assert differing == {"b": [True, 1], "c": [1.0, "not set"], "d": ["not set", None]}
