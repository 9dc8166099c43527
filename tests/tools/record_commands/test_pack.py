"""`pack`: continued where it was killed, lists, encoding anew."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sources import open_source
from tests.records import make_image_folder, picture
from tests.tools.record_commands.runs import contents, facts, kill_at, killed, run
from tools.record_commands import pack
from utils import record_set
from utils.images import decode_image, encode_jpeg
from utils.record_writer import RecordWriter
from utils.recordio import RecordReader


@pytest.fixture
def saves_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_set, "SAVE_SECONDS", 0.0)


def pack_killed(monkeypatch: pytest.MonkeyPatch, images: Path, output: Path, target: tuple, number: int) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*target, kill_at(getattr(*target), number))
        killed(lambda: run("pack", images, output))


@pytest.mark.usefixtures("saves_always")
@pytest.mark.parametrize(
    ("target", "number"),
    [
        ((RecordWriter, "write"), 6),  # between a save and the next image
        ((pack, "write_text_whole"), 5),  # synced, but not noted
        ((pack.os, "fstat"), 8),  # ahead, in a reading thread
        ((RecordWriter, "close"), 1),  # everything written, nothing renamed
    ],
)
def test_a_killed_run_is_continued_to_the_same_bytes(
    target: tuple, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_image_folder(tmp_path / "images", [3, 1, 4, 2])
    assert run("pack", images, tmp_path / "whole") == 0
    output = tmp_path / "set"
    pack_killed(monkeypatch, images, output, target, number)
    assert not {"train.rec", "property"} <= set(contents(output)), "it looks complete"
    found = facts(capsys, "pack", images, output)
    assert contents(output) == contents(tmp_path / "whole")
    assert found["continued_after"] >= 3 or target[1] == "fstat"


@pytest.mark.usefixtures("saves_always")
@pytest.mark.parametrize("number", [11, 12, 13, 14])
def test_killed_among_the_last_renames(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_image_folder(tmp_path / "images", [3, 1, 4, 2])
    assert run("pack", images, tmp_path / "whole") == 0
    pack_killed(monkeypatch, images, tmp_path / "set", (record_set.os, "replace"), number)  # 10 are of the saves
    assert "property" not in contents(tmp_path / "set")
    assert run("pack", images, tmp_path / "set") == 0
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("saves_always")
def test_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_image_folder(tmp_path / "images", [2, 5, 3])
    assert run("pack", images, tmp_path / "whole") == 0
    for _ in range(4):
        pack_killed(monkeypatch, images, tmp_path / "set", (RecordWriter, "write"), 4)
    assert run("pack", images, tmp_path / "set") == 0
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("saves_always")
@pytest.mark.parametrize("change", ["content", "order", "quality"])
def test_another_beginning_starts_anew(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_image_folder(tmp_path / "images", [3, 3])
    pack_killed(monkeypatch, images, tmp_path / "set", (RecordWriter, "write"), 5)
    options = []
    if change == "content":
        (images / "person_00" / "001.jpg").write_bytes(encode_jpeg(picture(99)))
    elif change == "order":
        (images / "person_00" / "000.jpg").rename(images / "person_00" / "009.jpg")
    else:
        options = ["--reencode", "--quality", "50"]
    assert facts(capsys, "pack", images, tmp_path / "set", *options)["continued_after"] == 0
    assert run("pack", images, tmp_path / "whole", *options) == 0
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("saves_always")
def test_a_damaged_image_costs_nothing_that_was_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [3, 3, 2])
    bad = images / "person_01" / "002.jpg"
    bad.write_bytes(bad.read_bytes()[:-30])
    assert run("pack", images, tmp_path / "set", "--threads", "1") == 2
    assert "the same command goes on from there" in capsys.readouterr().out
    bad.unlink()  # the set becomes smaller, its header another
    assert facts(capsys, "pack", images, tmp_path / "set")["continued_after"] == 5
    assert run("pack", images, tmp_path / "whole") == 0
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_two_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [1])
    script = f"from pathlib import Path; from utils.files import lock_folder; l = lock_folder(Path({str(tmp_path)!r}))"
    import subprocess
    import sys

    script += "; print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run("pack", images, tmp_path) == 2
        assert "another process is writing there" in capsys.readouterr().err
        holder.communicate("\n")


def test_a_list_with_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [2, 2])
    listed = [("person_01/001.jpg", "zoe"), ("person_00/000.jpg", "bob"), ("person_01/000.jpg", "bob")]
    (tmp_path / "list.txt").write_text("".join(f"{path}\t{name}\n" for path, name in listed))
    found = facts(capsys, "pack", tmp_path / "list.txt", tmp_path / "set", "--root", images)
    assert (found["images"], found["identities"]) == (3, 2)
    lines = (tmp_path / "set" / "train.lst").read_text()
    assert lines == "1\t0\tperson_00/000.jpg\n2\t0\tperson_01/000.jpg\n3\t1\tperson_01/001.jpg\n"
    with RecordReader(tmp_path / "set" / "train.rec") as reader:
        assert bytes(reader.sample(3)[1]) == (images / "person_01" / "001.jpg").read_bytes()


def test_a_list_with_numbers_keeps_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [2, 2])
    lines = ["7\t10.000000\tperson_00/000.jpg", "5\t2\tperson_01/001.jpg", "6\t10\tperson_00/001.jpg"]
    (images / "list.lst").write_text("\n".join(lines))
    found = facts(capsys, "pack", images / "list.lst", tmp_path / "set")
    assert (found["identities"], found["empty_identities"]) == (11, 9)
    assert open_source(str(tmp_path / "set")).class_counts().tolist() == [0, 0, 1, *[0] * 7, 2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "person_00/000.jpg\n", "nothing says who is on person_00/000.jpg"),
        ("list.lst", "1\t99999999\tperson_00/000.jpg\n", "labels are below 16777216"),
        ("list.lst", "1\t9999\tperson_00/000.jpg\n", "label 9999 with 1 images: nearly all would be empty"),
        ("list.csv", "x", "a list ends in .lst"),
        ("list.txt", "no.jpg\tann\n", "no.jpg: cannot be read: No such file"),
    ],
)
def test_lists_that_cannot_be_packed(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_image_folder(tmp_path / "images", [1])
    (images / name).write_text(text)
    assert run("pack", images / name, tmp_path / "set") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "start"), [("jpg", b"\xff\xd8"), ("png", b"\x89PNG"), ("webp", b"RIFF")])
def test_encoding_anew(kind: str, start: bytes, tmp_path: Path) -> None:
    images = make_image_folder(tmp_path / "images", [2])
    assert run("pack", images, tmp_path / "set", "--reencode", "--format", kind, "--quality", "60") == 0
    with RecordReader(tmp_path / "set" / "train.rec") as reader:
        payload = bytes(reader.sample(1)[1])
    original = decode_image((images / "person_00" / "000.jpg").read_bytes())
    assert payload.startswith(start)
    difference = np.abs(decode_image(payload).astype(int) - original)
    assert difference.max() == 0 if kind == "png" else difference.mean() < 6
    if kind == "jpg":
        flags = [cv2.IMWRITE_JPEG_QUALITY, 60]
        assert payload == cv2.imencode(".jpg", cv2.cvtColor(original, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def test_a_name_that_a_list_cannot_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [1])
    (images / "person_00" / "a\tb.jpg").write_bytes(encode_jpeg(picture(1)))
    assert run("pack", images, tmp_path / "set") == 2
    assert "has a line break or a tab in its name" in capsys.readouterr().err


def test_a_place_among_the_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [1, 1])
    assert run("pack", images, images / "set") == 2
    assert "where every folder is an identity" in capsys.readouterr().err
    assert not (images / "set").exists()
