"""The pictures and the page of the heads say what the code says now."""

from __future__ import annotations

import inspect
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from torch import Tensor

from losses import HEADS, ClassStatistics, Head, PartialFC, SampleStatistics, build_head
from tools.draw_heads import main
from tools.head_pictures.canvas import to_svg
from tools.head_pictures.recipes import RECIPES, picture_of
from tools.head_pictures.table import BEGIN, END, names_of, needs_class_counts, support_table, write_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "heads.md"
FOLDER = ROOT / "docs" / "heads"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
HINT = "run: python -m tools.draw_heads --page docs/heads.md"
heads = pytest.mark.parametrize("name", names_of())


def described(svg: bytes) -> dict[str, object]:
    """The words and numbers a picture carries about itself."""
    found = next(ElementTree.fromstring(svg).iter(DESCRIPTION)).text
    assert found
    data: dict[str, object] = json.loads(found)
    return data


def section(name: str) -> str:
    """The part of the page that is about this head."""
    found = re.search(rf"^#### {re.escape(name)}\n(.*?)(?=^#{{1,4}} |\Z)", PAGE.read_text(), re.M | re.S)
    assert found, f"docs/heads.md has no section '#### {name}'"
    return found[1]


class Doubled(Head):
    """A head that the product does not know: its target counts twice, its non-targets squared."""

    normalize_embeddings = True
    normalize_prototypes = True

    def non_target(self, similarity: Tensor, *context: Tensor) -> Tensor:
        return similarity.square()

    def target_logit(self, stats: SampleStatistics) -> Tensor:
        return 2 * stats.target


class OwnLoss(Head):
    """A head that the product does not know, with a loss of its own."""

    def loss(self, stats: ClassStatistics) -> Tensor:
        return (1 - stats.target).relu() + stats.log_sum


# matplotlib may change how it draws from one version to the next, so numbers and words are compared, not bytes.
@heads
def test_committed_picture_is_what_would_be_drawn_now(name: str) -> None:
    path = FOLDER / f"{name}.svg"
    assert path.is_file(), f"no picture of {name}; {HINT}"
    assert len(path.read_bytes()) < 25_000
    old, new = described(path.read_bytes()), json.loads(picture_of(name).description())
    old_lines, new_lines = ({**data.pop("curves"), **data.pop("bands")} for data in (old, new))
    assert old == new, HINT
    assert list(old_lines) == list(new_lines), HINT
    for label, values in new_lines.items():
        assert old_lines[label] == pytest.approx(values, abs=2e-3), f"{name}, {label}; {HINT}"


@heads
def test_curves_are_whole_and_finite(name: str) -> None:
    picture = picture_of(name)
    assert picture.curves
    for curve in picture.curves:
        assert curve.values.shape == (181,)
        assert curve.values.isfinite().all()
    assert len({curve.label for curve in picture.curves}) == len(picture.curves)


def test_no_picture_or_recipe_of_a_head_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(names_of())
    assert set(RECIPES) <= set(names_of())


def test_drawing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "new" / "folder")]) == 0
    for name in names_of():
        drawn = (tmp_path / "new" / "folder" / f"{name}.svg").read_bytes()
        assert drawn == to_svg(picture_of(name))
        assert b"<dc:date>" not in drawn


def test_svsoftmax_marks_where_the_logits_meet() -> None:
    ((degrees, text),) = picture_of("svsoftmax").marks
    assert degrees == pytest.approx(41.41, abs=0.01)  # cos theta = m / (2 (1 - m)) = 0.75
    assert text == "41.4°"


def test_head_from_outside_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(HEADS, "doubled", Doubled)
    monkeypatch.setitem(HEADS, "own_loss", OwnLoss)
    assert main(["--out", str(tmp_path)]) == 0
    doubled, own = (described((tmp_path / f"{name}.svg").read_bytes()) for name in ("doubled", "own_loss"))
    curves = doubled["curves"]
    assert isinstance(curves, dict)
    assert list(curves) == ["target", "no margin", "non-target, own class at 45°"]
    assert [curves["target"][0], curves["no margin"][0], *list(curves.values())[2][::6]] == [2, 1, 1, 0, 1]
    assert own["unit"] == "loss"
    assert "`doubled`" in support_table()


def test_out_that_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert "error: " in capsys.readouterr().err


def test_page_without_markers_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    assert main(["--out", str(tmp_path), "--page", str(page)]) == 2
    assert BEGIN in capsys.readouterr().err
    assert page.read_text() == "nothing here\n"


def test_table_is_written_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page)
    assert page.read_text() == f"before\n{BEGIN}\n{support_table()}\n{END}\nafter\n"


def test_page_holds_the_table_of_the_registry() -> None:
    assert f"{BEGIN}\n{support_table()}\n{END}" in PAGE.read_text(), HINT


@heads
def test_page_shows_every_head_with_its_options(name: str) -> None:
    text = section(name)
    assert f"](heads/{name}.svg)" in text, f"the section of {name} lacks its picture"
    assert PAGE.read_text().count(f"](#{name})") >= 2, f"the index or the table lacks {name}"
    for key, option in inspect.signature(HEADS[name]).parameters.items():
        default = option.default
        value = (
            f"{default:g}"
            if type(default) in (int, float)
            else f'"{default}"'
            if type(default) is str
            else f"{default}"
        )
        assert re.search(rf"[`,] ?{key}={re.escape(value)}[`,]", text), f"{name}: the page lacks {key}={value}"


def test_page_links_lead_somewhere() -> None:
    text = PAGE.read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert not path or (PAGE.parent / path).exists(), f"docs/heads.md points to {target}"
        assert path or anchor in anchors, f"docs/heads.md has no section {target}"


@heads
def test_table_tells_the_truth(name: str) -> None:
    """By use: the layer takes the filter, the counts and the warm-up exactly where the table says so."""
    (row,) = [line for line in support_table().splitlines() if line.startswith(f"| [`{name}`]")]
    _, warm_up, interclass_filter, by_class, counts, running, learned, _ = (
        cell.strip() for cell in row.split("|")[1:-1]
    )
    assert (counts == "needed") == needs_class_counts(name)
    head = build_head(name)
    given = torch.tensor([3, 9, 4, 7, 2])
    fc = PartialFC(head, 6, 5, class_counts=given, prototype_std=1.0, seed=4)
    random = torch.Generator().manual_seed(6)
    embeddings, labels = 3 * torch.randn(10, 6, generator=random), torch.arange(10) % 5
    before = {key: value.clone() for key, value in head.named_buffers()}
    loss = fc(embeddings, labels)
    moved = sorted(key for key, value in head.named_buffers() if not torch.equal(value, before[key]))
    assert ", ".join(f"`{key}`" for key in moved) == running
    assert ", ".join(f"`{key}`" for key, _ in head.named_parameters()) == learned
    fc.eval()
    full = fc(embeddings, labels)
    fc.margin_factor = 0.3
    assert (not torch.equal(fc(embeddings, labels), full)) == (warm_up == "yes" and name != "combined")
    assert loss.isfinite()
    if interclass_filter == "yes":
        PartialFC(build_head(name), 6, 5, class_counts=given, interclass_filter=0.5)
    else:
        with pytest.raises(ValueError, match="interclass_filter"):
            PartialFC(build_head(name), 6, 5, class_counts=given, interclass_filter=0.5)
    if interclass_filter not in ("yes", "no"):
        PartialFC(build_head(name, normalized=True), 6, 5, class_counts=given, interclass_filter=0.5)
    for key in re.findall(r"`(\w+)`", by_class):
        build_head(name, **{key: [1.0] * 5}).setup(5, given)
        with pytest.raises(ValueError, match=key):
            build_head(name, **{key: [1.0] * 4}).setup(5, given)
