"""`unpack`: a packed folder comes back as it was; names that cannot be files are not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.records import make_image_folder, make_record_set
from tests.tools.record_commands.runs import contents, facts, kill_at, killed, run
from tools.record_commands import unpack
from utils.recordio import RecordReader


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_packed_folder_comes_back_and_can_be_packed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [3, 1, 2])
    assert run("pack", images, tmp_path / "set") == 0
    found = facts(capsys, "unpack", tmp_path / "set", tmp_path / "back")
    assert (found["images"], found["identities"], found["named"]) == (6, 3, True)
    back = tree(tmp_path / "back")
    assert back.pop("images.lst") == (tmp_path / "set" / "train.lst").read_bytes()
    assert back == tree(images)
    assert run("pack", tmp_path / "back" / "images.lst", tmp_path / "again") == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "set")


def test_numbers_where_there_are_no_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path / "set", [1] * 11)  # its .lst names no folders
    found = facts(capsys, "unpack", tmp_path / "set", tmp_path / "back")
    assert not found["named"]
    assert "no folder tells who this is" in found["why_numbered"]
    files = sorted(tree(tmp_path / "back"))
    assert files[:2] + files[-2:] == ["00/01.jpg", "01/02.jpg", "10/11.jpg", "images.lst"]
    assert run("pack", tmp_path / "back", tmp_path / "again") == 0  # sorted by name the labels come back
    with RecordReader(tmp_path / "set" / "train.rec") as old, RecordReader(tmp_path / "again" / "train.rec") as new:
        assert all(old.read(key) == new.read(key) for key in range(23))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../person_00/x.jpg", "leads out of the folder"),
        ("/tmp/person_00/x.jpg", "leads out of the folder"),
        ("person_00//x.jpg", "leads out of the folder"),
        ("person_00/001.jpg", "is another record's name too"),
        ("images.lst/x.jpg", "is no name that a file can have"),
        ("a/" + "x" * 300 + ".jpg", "is no name that a file can have"),
        ("person_01/x.jpg", "identity 0 has images in"),
    ],
)
def test_names_that_are_not_used(name: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [1, 1] if "leads" in reason or "no name" in reason else [2, 1])
    assert run("pack", images, tmp_path / "set") == 0
    lst = tmp_path / "set" / "train.lst"
    lst.write_text(lst.read_text().replace("person_00/000.jpg", name))
    found = facts(capsys, "unpack", tmp_path / "set", tmp_path / "back")
    assert reason in found["why_numbered"]
    assert "0/1.jpg" in tree(tmp_path / "back")
    assert not (tmp_path / "person_00").exists()


def test_killed_it_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_image_folder(tmp_path / "images", [3, 4])
    assert run("pack", images, tmp_path / "set") == 0
    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_write", kill_at(unpack._write, 5))
        killed(lambda: run("unpack", tmp_path / "set", tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    half = tmp_path / ".back.partial" / "person_00" / "001.jpg"
    half.write_bytes(half.read_bytes()[:-9])  # the file that was being written
    assert facts(capsys, "unpack", tmp_path / "set", tmp_path / "back")["kept"] == 3
    back = tree(tmp_path / "back")
    back.pop("images.lst")
    assert back == tree(images)
    assert not (tmp_path / ".back.partial").exists()


def test_the_rest_of_another_set_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path / "set", [2])
    (tmp_path / ".back.partial" / "somebody").mkdir(parents=True)
    assert run("unpack", tmp_path / "set", tmp_path / "back") == 2
    assert "is left from unpacking another set" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert run("unpack", tmp_path / "set", tmp_path / "there") == 2
    assert "is already there" in capsys.readouterr().err


def test_killed_before_it_began_and_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record_set(tmp_path / "set", [2])
    (tmp_path / ".back.partial").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(unpack.os, "replace", kill_at(unpack.os.replace, 3))  # stamp, list, folder
        killed(lambda: run("unpack", tmp_path / "set", tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    assert run("unpack", tmp_path / "set", tmp_path / "back") == 0
    assert sorted(tree(tmp_path / "back")) == ["0/1.jpg", "0/2.jpg", "images.lst"]


def test_bytes_that_a_power_cut_lost_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_image_folder(tmp_path / "images", [3, 4])
    assert run("pack", images, tmp_path / "set") == 0
    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_write", kill_at(unpack._write, 5))
        killed(lambda: run("unpack", tmp_path / "set", tmp_path / "back"))
    lost = tmp_path / ".back.partial" / "person_00" / "001.jpg"
    lost.write_bytes(bytes(lost.stat().st_size))
    assert run("unpack", tmp_path / "set", tmp_path / "back") == 0
    assert (tmp_path / "back/person_00/001.jpg").read_bytes() == (images / "person_00/001.jpg").read_bytes()


def test_two_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record_set(tmp_path / "set", [2])
    work = "from pathlib import Path; from utils.files import lock_folder; import sys; "
    work += "kept = lock_folder(Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", work, tmp_path / ".back.partial"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    assert run("unpack", tmp_path / "set", tmp_path / "back") == 2
    assert "another process is unpacking there" in capsys.readouterr().err
    child.stdin.close()
    assert child.wait() == 0
    assert run("unpack", tmp_path / "set", tmp_path / "back") == 0
