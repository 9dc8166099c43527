"""Packing and inspecting record sets, as the command line does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sources import open_source
from tests.data import SHARED, needs_golden
from tests.records import make_image_folder, make_record_set, picture
from tools import records
from utils.images import decode_image, encode_jpeg
from utils.record_set import write_record_set
from utils.recordio import RecordError, RecordReader

ROOT = Path(__file__).resolve().parents[2]
SET_FILES = ["property", "train.idx", "train.lst", "train.rec"]


def run(*arguments: object) -> int:
    return records.main([str(argument) for argument in arguments])


def test_packing_keeps_bytes_labels_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [3, 1, 2])
    assert run("pack", images, tmp_path / "set") == 0
    assert "6 images of 3 identities" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == SET_FILES
    assert (tmp_path / "set" / "property").read_text() == "3,16,16"
    listed = [line.split("\t") for line in (tmp_path / "set" / "train.lst").read_text().splitlines()]
    with RecordReader(tmp_path / "set" / "train.rec") as reader:
        assert (reader.layout, len(reader)) == ("insightface", 1 + 6 + 3)
        assert reader.class_counts().tolist() == [3, 1, 2]
        for key, label, name in listed:
            header, payload = reader.sample(int(key))
            assert bytes(payload) == (images / name).read_bytes()
            assert (header.flag, header.label, header.id) == (0, float(label), int(key))


def test_the_layout_is_insightfaces_own(tmp_path: Path) -> None:
    make_record_set(tmp_path, [3, 1, 2])
    with RecordReader(tmp_path / "train.rec") as reader:
        labels = {key: reader.sample(key)[0].label for key in (0, 7, 8, 9)}
        assert {key: value.tolist() for key, value in labels.items()} == {0: [7, 10], 7: [1, 4], 8: [4, 5], 9: [5, 7]}
        assert all(len(reader.sample(key)[1]) == 0 for key in labels)


def test_resizing_touches_only_images_of_another_size(tmp_path: Path) -> None:
    images = make_image_folder(tmp_path / "images", [2])
    odd = images / "person_00" / "001.jpg"
    odd.write_bytes(encode_jpeg(picture(1, 40, 20)))
    assert run("pack", images, tmp_path / "set", "--size", "16", "--quality", "90") == 0
    with RecordReader(tmp_path / "set" / "train.rec") as reader:
        assert reader.read(1)[24:] == (images / "person_00" / "000.jpg").read_bytes()
        shrunk = decode_image(reader.sample(2)[1])
    middle = picture(1, 40, 20)[10:30]
    expected = records.resized(middle, (16, 16))
    assert shrunk.shape == (16, 16, 3)
    assert np.abs(shrunk.astype(int) - expected).mean() < 4


def test_filling_borders_changes_only_images_that_have_one(tmp_path: Path) -> None:
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    whole = np.full((112, 112, 3), 120, np.uint8)
    bordered = whole.copy()
    bordered[:40] = 0
    for name, image in (("a.jpg", whole), ("b.jpg", bordered)):
        (tmp_path / "faces" / "ann" / name).write_bytes(encode_jpeg(image))
    (tmp_path / "faces" / "bob").mkdir()
    (tmp_path / "faces" / "bob" / "c.jpg").write_bytes(encode_jpeg(whole))
    assert run("pack", tmp_path / "faces", tmp_path / "set", "--fill-borders") == 0
    source = open_source(str(tmp_path / "set"))
    assert source.read(1)[0].min() > 100
    with RecordReader(tmp_path / "set" / "train.rec") as reader:
        assert bytes(reader.sample(1)[1]) == encode_jpeg(whole)


def test_resized_keeps_the_aspect_and_the_middle() -> None:
    image = np.zeros((30, 60, 3), dtype=np.uint8)
    image[:, 15:45] = 200  # the middle square
    assert (records.resized(image, (10, 10)) == 200).all()
    assert records.resized(image, (7, 14)).shape == (7, 14, 3)
    assert records.resized(image, (120, 100)).shape == (120, 100, 3)


def test_sizes_that_differ_are_refused_without_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [2])
    (images / "person_00" / "001.jpg").write_bytes(encode_jpeg(picture(1, 40, 20)))
    assert run("pack", images, tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert "person_00/001.jpg: 40x20 (height x width), the first image is 16x16" in error
    assert "add --size 16" in error
    assert list((tmp_path / "set").iterdir()) == []


def test_a_damaged_image_stops_packing_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [2, 2])
    bad = images / "person_01" / "001.jpg"
    bad.write_bytes(bad.read_bytes()[:-30])
    assert run("pack", images, tmp_path / "set") == 2
    assert "ends early" in (error := capsys.readouterr().err)
    assert str(bad) in error
    assert list((tmp_path / "set").iterdir()) == []


def test_an_older_set_is_kept_until_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [2, 2])
    make_record_set(tmp_path / "set", [1, 1, 1])
    before = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    assert run("pack", images, tmp_path / "set") == 2
    assert "already there: choose another folder, or add --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == before
    assert run("pack", images, tmp_path / "set", "--overwrite") == 0
    assert open_source(str(tmp_path / "set")).class_counts().tolist() == [2, 2]


def test_entries_that_are_no_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [1])
    (images / "person_00" / "notes.txt").write_text("x")
    assert run("pack", images, tmp_path / "set") == 0
    assert "1 entries are no images and are left out: person_00/notes.txt" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "112x", "axb", "1x2x3", "99999"])
def test_sizes_that_are_none(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("pack", tmp_path, tmp_path / "set", "--size", size)
    assert "is no size: give pixels as 112 or HEIGHTxWIDTH" in capsys.readouterr().err


def test_a_missing_image_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pack", tmp_path / "none", tmp_path / "set") == 2
    assert "none: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("numbers", "message"),
    [([2, 3], "only 4 of the 5 counted images came"), ([2, 1], "more images came than the 3")],
)
def test_a_wrong_count_leaves_nothing(numbers: list[int], message: str, tmp_path: Path) -> None:
    stream = [(encode_jpeg(picture(number)), "name") for number in range(4)]
    with pytest.raises(RecordError, match=message):
        write_record_set(tmp_path, numbers, stream, (16, 16))
    assert list(tmp_path.iterdir()) == []


def test_killed_while_packing_nothing_looks_complete(tmp_path: Path) -> None:
    make_record_set(tmp_path, [1])
    (tmp_path / "train.rec").unlink()
    (tmp_path / "train.idx").unlink()
    (tmp_path / "property").unlink()
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from utils.record_set import write_record_set\n"
        "def images():\n"
        "    yield b'x', 'a'\n"
        "    os._exit(9)\n"
        "write_record_set(Path(sys.argv[2]), [2], images(), (16, 16))\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(ROOT), str(tmp_path)], check=False).returncode == 9
    assert not {"train.rec", "train.idx", "property"} & {path.name for path in tmp_path.iterdir()}
    make_record_set(tmp_path, [2, 1])
    assert sorted(path.name for path in tmp_path.iterdir()) == SET_FILES


def inspected(path: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict:
    assert run("inspect", path, "--json") == status
    return json.loads(capsys.readouterr().out)


def test_inspecting_a_sound_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, [3, 0, 2])
    report = inspected(tmp_path, capsys)
    assert (report["layout"], report["records"], report["images"], report["classes"]) == ("insightface", 9, 5, 3)
    assert report["images_per_identity"] == {"min": 2, "median": 2.5, "mean": 2.5, "max": 3}
    assert (report["empty_identities"], report["sizes"], report["decoded"]) == (1, {"16x16": 5}, 5)
    assert report["damage"] == report["notes"] == []
    assert run("inspect", tmp_path) == 0
    text = capsys.readouterr().out
    assert "identities  3, 1 without an image" in text
    assert "no damage found" in text


def test_inspecting_lists_every_damaged_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, [3, 3])
    with RecordReader(tmp_path / "train.rec") as reader:
        offsets = [reader.offset(key) for key in range(7)]
    data = bytearray((tmp_path / "train.rec").read_bytes())
    data[offsets[2]] ^= 1  # magic
    data[offsets[3] + 14] = 0x7F  # label
    data[offsets[5] + 32] = 0  # JPEG
    (tmp_path / "train.rec").write_bytes(data)
    report = inspected(tmp_path, capsys, status=1)
    assert report["damaged_records"] == 3
    text = "\n".join(report["damage"])
    assert f"record 2, byte {offsets[2]}: no record begins here" in text
    assert f"record 3, byte {offsets[3]}: label" in text
    assert f"record 5, byte {offsets[5]}: these" in text
    assert run("inspect", tmp_path) == 1
    assert "DAMAGE in 3 places" in capsys.readouterr().out


def test_inspecting_an_unreadable_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, [3, 3])
    (tmp_path / "train.idx").unlink()
    data = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(data[: len(data) - 10])
    report = inspected(tmp_path, capsys, status=1)
    assert (report["layout"], report["damaged_records"]) == ("unreadable", 1)
    assert "truncated" in report["damage"][0]


def test_inspecting_notes_what_training_tolerates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path, [2, 2])
    (tmp_path / "property").unlink()
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join(lines[:-1]))
    notes = "\n".join(inspected(tmp_path, capsys)["notes"])
    assert "no property file" in notes
    assert "belong to no record of the index" in notes
    (tmp_path / "train.idx").unlink()
    assert "no .idx beside train.rec" in "\n".join(inspected(tmp_path, capsys)["notes"])


def test_inspecting_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", tmp_path) == 2
    assert "train.rec: no such file" in capsys.readouterr().err


@needs_golden
@pytest.mark.parametrize(("name", "images"), [("insightface_layout", 144), ("im2rec_plain", 8)])
def test_inspecting_sets_written_by_mxnet(name: str, images: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = inspected(SHARED / "golden" / name, capsys)
    assert report["images"] == images
    assert report["sizes"] == {"112x112": images}


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    make_record_set(tmp_path, [1, 1])
    command = [sys.executable, "-m", "tools.records", "inspect", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "no damage found" in result.stdout
