"""`verify`: nothing wrong with sound sets, every kind of damage told with its place, a lost index rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data import SHARED, needs_golden
from tests.records import make_record_set, picture
from tests.tools.record_commands.runs import facts, run
from utils.images import encode_jpeg
from utils.record_framing import MAGIC_BYTES
from utils.recordio import RecordHeader, RecordReader, RecordWriter, pack_record

COUNTS = [3, 1, 4]


def offset_of(folder: Path, key: int) -> int:
    with RecordReader(folder / "train.rec") as reader:
        return reader.offset(key)


def change_word(folder: Path, offset: int, word: bytes) -> None:
    data = bytearray((folder / "train.rec").read_bytes())
    data[offset : offset + 4] = word
    (folder / "train.rec").write_bytes(data)


def rewrite(folder: Path, change: Callable[[dict[int, bytes]], object]) -> None:
    """Writes the set's records again, changed."""
    with RecordReader(folder / "train.rec") as reader:
        records = {key: reader.read(key) for key in reader.keys.tolist()}
    change(records)
    with RecordWriter(folder / "train.rec", folder / "train.idx") as writer:
        for key, body in records.items():
            writer.write(key, body)


def image(label: float, key: int, height: int = 16) -> bytes:
    return pack_record(RecordHeader(0, label, key), encode_jpeg(picture(key, height, 16)))


def span(start: float, end: float, key: int) -> bytes:
    return pack_record(RecordHeader(2, np.array([start, end], np.float32), key), b"")


def test_a_sound_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, COUNTS)
    found = facts(capsys, "verify", tmp_path)
    assert (found["records"], found["images"], found["decoded"], found["classes"]) == (12, 8, 8, 3)
    assert (found["num_findings"], found["notes"], found["layout"]) == (0, [], "insightface")
    assert facts(capsys, "verify", tmp_path, "--no-decode")["decoded"] == 0
    assert run("verify", tmp_path) == 0
    assert "nothing wrong" in capsys.readouterr().out


@needs_golden
@pytest.mark.parametrize(("name", "images"), [("insightface_layout", 144), ("im2rec_plain", 8)])
def test_sets_that_mxnet_wrote(name: str, images: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, "verify", SHARED / "golden" / name)
    assert (found["num_findings"], found["images"], found["decoded"]) == (0, images, images)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, int | None, str]] = {
    "magic": (lambda folder: change_word(folder, offset_of(folder, 3), b"ABCD"), "framing", 3, "no record begins here"),
    "length": (lambda folder: change_word(folder, offset_of(folder, 4) + 4, b"\xff\xff\0\0"), "framing", 4, "bytes"),
    "short length": (lambda folder: change_word(folder, offset_of(folder, 2) + 4, b"\x40\0\0\0"), "image", 2, "JPEG"),
    "label": (lambda folder: change_word(folder, offset_of(folder, 5) + 12, b"\0\0\xc0\x7f"), "label", 5, "label nan"),
    "label beyond": (lambda folder: rewrite(folder, lambda r: r.update({6: image(3.0, 6)})), "label", 6, "0 .. 2"),
    "half a label": (lambda folder: rewrite(folder, lambda r: r.update({6: image(1.5, 6)})), "label", 6, "label 1.5"),
    "other label": (lambda folder: rewrite(folder, lambda r: r.update({6: image(1.0, 6)})), "identity", 11, "tity 2"),
    "pixels": (lambda folder: change_word(folder, offset_of(folder, 8) + 32, b"GIF8"), "image", 8, "not a whole image"),
    "size": (lambda folder: rewrite(folder, lambda r: r.update({1: image(0.0, 1, 20)})), "size", 1, "20x16"),
    "no image": (lambda folder: rewrite(folder, lambda r: r.update({7: span(1, 2, 7)})), "image", 7, "has none"),
    "short": (lambda folder: rewrite(folder, lambda r: r.update({7: b"1234567"})), "header", 7, "too short"),
    "span": (lambda folder: rewrite(folder, lambda r: r.update({10: span(4, 6, 10)})), "identity", 10, "identity 1"),
    "set header": (lambda folder: rewrite(folder, lambda r: r.update({0: span(9.5, 12, 0)})), "set header", 0, "9.5"),
    "infinite": (lambda folder: rewrite(folder, lambda r: r.update({0: span(-np.inf, 12, 0)})), "set header", 0, "inf"),
    "no span": (lambda folder: rewrite(folder, lambda r: r.update({10: span(np.nan, 6, 10)})), "identity", 10, "two"),
    "missing": (lambda folder: rewrite(folder, lambda r: r.pop(5)), "set header", None, "1 of the keys 0 .. 11"),
    "property": (lambda folder: (folder / "property").write_text("4,16,16"), "property", None, "says 4 classes"),
    "broken property": (lambda folder: (folder / "property").write_text("x"), "property", None, "it holds 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_every_kind_of_damage_is_told(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, COUNTS)
    damage, kind, key, text = DAMAGE[name]
    damage(tmp_path)
    found = facts(capsys, "verify", tmp_path, "--bad-keys", tmp_path / "bad.txt", status=1)
    mine = [item for item in found["findings"] if (item["kind"], item["key"]) == (kind, key) and text in item["what"]]
    assert len(mine) == 1, found["findings"]
    if kind in ("framing", "image", "label", "size", "header"):
        assert str(key) in (tmp_path / "bad.txt").read_text().splitlines()
    assert run("verify", tmp_path) == 1
    assert "WRONG in" in capsys.readouterr().out


def index_lines(folder: Path) -> list[str]:
    return (folder / "train.idx").read_text().splitlines(keepends=True)


def swapped(lines: list[str]) -> list[str]:
    (one, first), (two, second) = lines[2].strip().split("\t"), lines[5].strip().split("\t")
    return [*lines[:2], f"{one}\t{second}\n", *lines[3:5], f"{two}\t{first}\n", *lines[6:]]


WRONG_INDEX: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "swapped": (swapped, "calls itself"),
    "line lost": (lambda lines: lines[:4] + lines[5:], "the index does not know it"),
    "elsewhere": (lambda lines: [*lines[:4], "4\t4\n", *lines[5:]], "no record begins here"),
    "no number": (lambda lines: [*lines[:4], "4\tx\n", *lines[5:]], "expected 'key<TAB>offset'"),
    "twice": (lambda lines: [*lines, f"77\t{lines[4].split()[1]}\n"], "several keys"),
}


@pytest.mark.parametrize("name", WRONG_INDEX)
def test_a_wrong_index_is_told_and_mended(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, COUNTS)
    right = (tmp_path / "train.idx").read_bytes()
    change, text = WRONG_INDEX[name]
    (tmp_path / "train.idx").write_text("".join(change(index_lines(tmp_path))))
    wrong = (tmp_path / "train.idx").read_bytes()
    found = facts(capsys, "verify", tmp_path, status=1)
    assert found["findings_by_kind"]["index"] >= 1
    assert any(text in item["what"] for item in found["findings"])
    found = facts(capsys, "verify", tmp_path, "--repair-index")
    assert (found["num_findings"], found["repaired_index"]) == (0, str(tmp_path / "train.idx"))
    assert (tmp_path / "train.idx").read_bytes() == right
    assert (tmp_path / "train.idx.before_repair").read_bytes() == wrong
    found = facts(capsys, "verify", tmp_path, "--repair-index")
    assert (found["repaired_index"], found["notes"]) == (None, ["train.idx is right and stays as it is"])


@pytest.mark.parametrize("name", ["insightface", "mxnet", "plain"])
def test_a_lost_index_is_rebuilt_byte_for_byte(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "mxnet":
        golden = SHARED / "golden" / "insightface_layout"
        if not golden.exists():
            pytest.skip(f"public test data absent: {golden}")
        for file in ("train.rec", "train.idx", "property"):
            (tmp_path / file).write_bytes((golden / file).read_bytes())
    elif name == "insightface":
        make_record_set(tmp_path, COUNTS)
    else:
        with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
            for key in (3, 5, 900):
                writer.write(key, image(0.0, key))
    right = (tmp_path / "train.idx").read_bytes()
    (tmp_path / "train.idx").unlink()
    assert "no train.idx: keys are told from the file" in facts(capsys, "verify", tmp_path)["notes"][0]
    assert not (tmp_path / "train.idx").exists()
    assert facts(capsys, "verify", tmp_path, "--repair-index")["num_findings"] == 0
    assert (tmp_path / "train.idx").read_bytes() == right


def test_the_index_of_a_damaged_file_is_not_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, COUNTS)
    change_word(tmp_path, offset_of(tmp_path, 3), b"ABCD")
    (tmp_path / "train.idx").unlink()
    assert run("verify", tmp_path, "--repair-index") == 2
    assert "not written, since bytes" in capsys.readouterr().err
    assert not (tmp_path / "train.idx").exists()


def test_ids_that_are_no_keys_are_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
        for key in range(40):
            writer.write(key, pack_record(RecordHeader(0, 0.0, 0), encode_jpeg(picture(key))))
    assert facts(capsys, "verify", tmp_path)["num_findings"] == 0


def test_nothing_but_rubbish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"rubbish", MAGIC_BYTES * 7, b"\0" * 400):
        (tmp_path / "train.rec").write_bytes(content)
        found = facts(capsys, "verify", tmp_path, status=1)
        assert (found["records"], found["images"]) == (0, 0)
        assert run("verify", tmp_path, "--repair-index") == 2


def test_many_findings_are_counted_and_some_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.record_commands.walked_set.LISTED", 5)
    make_record_set(tmp_path, [40])
    (tmp_path / "property").write_text("1,20,20")
    found = facts(capsys, "verify", tmp_path, status=1)
    assert (found["findings_by_kind"], len(found["findings"])) == ({"size": 40}, 5)
    assert run("verify", tmp_path) == 1
    assert "... and 20 more; --json lists 5 of them" in capsys.readouterr().out


def test_records_that_are_none_are_all_in_the_file_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.record_commands.walked_set.LISTED", 1)
    make_record_set(tmp_path, [40])
    for key in (3, 30):
        change_word(tmp_path, offset_of(tmp_path, key), bytes(4))
    assert run("verify", tmp_path, "--bad-keys", tmp_path / "bad.txt") == 1
    assert (tmp_path / "bad.txt").read_text() == "3\n30\n"
