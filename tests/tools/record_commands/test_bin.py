"""`bin`: a pair list and its images as `.bin`, and back without a loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.bin_files import read_bin, write_bin
from eval.pairs import load_bin, load_pair_list, load_pairs
from tests.eval.faces import face
from tests.tools.record_commands.runs import facts, kill_at, killed, run
from tools.record_commands import bin as bin_command
from utils.images import encode_image, encode_jpeg


def folder_of_faces(folder: Path) -> Path:
    for identity, name in enumerate(("Ann", "Bob", "Cid")):
        (folder / name).mkdir(parents=True)
        for shot in range(1, 4):
            (folder / name / f"{name}_{shot:04d}.jpg").write_bytes(encode_jpeg(face(identity, shot)))
    return folder


LFW = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t3\nCid\t2\tBob\t1\n"


def test_from_a_list_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_faces(tmp_path / "images")
    (tmp_path / "pairs.txt").write_text(LFW)
    found = facts(capsys, "bin", images, tmp_path / "set.bin", "--pairs", tmp_path / "pairs.txt")
    assert (found["pairs"], found["same"], found["images"]) == (4, 2, 5)
    listed, packed = load_pair_list(images, tmp_path / "pairs.txt"), load_bin(tmp_path / "set.bin")
    assert packed.data_sha256 == found["sha256"]
    assert packed.is_same.tolist() == listed.is_same.tolist() == [True, False, True, False]
    assert all(np.array_equal(packed.images[n], listed.images[n]) for n in range(8))
    found = facts(capsys, "bin", tmp_path / "set.bin", tmp_path / "back")
    assert (found["images"], found["identities"], found["contradictions"]) == (5, 3, 0)
    back = load_pairs("back", tmp_path)
    assert back.is_same.tolist() == packed.is_same.tolist()
    assert back.first_index.tolist() == packed.first_index.tolist()
    pairs = ["--pairs", tmp_path / "back" / "pairs.txt"]
    assert run("bin", tmp_path / "back" / "images", tmp_path / "again.bin", *pairs) == 0
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "set.bin").read_bytes()


def test_a_set_that_contradicts_itself_keeps_saying_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = [encode_jpeg(face(0, shot)) for shot in range(3)] + [encode_image(face(1), "png")]
    order, flags = [0, 1, 1, 2, 0, 2, 3, 3, 0, 0], [True, True, False, True, False]
    write_bin(tmp_path / "set.bin", [faces[n] for n in order], flags)
    found = facts(capsys, "bin", tmp_path / "set.bin", tmp_path / "back")
    assert (found["contradictions"], found["same"]) == (2, 3)
    back = load_pairs("back", tmp_path)
    assert back.is_same.tolist() == flags
    lines = (tmp_path / "back" / "pairs.txt").read_text().splitlines()
    assert [(tmp_path / "back" / "images" / line).read_bytes() for line in lines] == [faces[n] for n in order]
    assert lines[6].endswith(".png")


def test_where_folds_are_lost_every_block_holds_both_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_faces(tmp_path / "images")
    same = ["Ann/Ann_0001.jpg Ann/Ann_0002.jpg 1 0\n"] * 15 + ["Bob/Bob_0001.jpg Bob/Bob_0003.jpg 1 1\n"] * 5
    different = ["Ann/Ann_0001.jpg Bob/Bob_0001.jpg 0 1\n"] * 8 + ["Bob/Bob_0002.jpg Cid/Cid_0001.jpg 0 2\n"] * 12
    (tmp_path / "pairs.txt").write_text("".join(same + different))
    assert run("bin", images, tmp_path / "set.bin", "--pairs", tmp_path / "pairs.txt") == 0
    printed = capsys.readouterr().out
    assert "note: the list's folds are lost" in printed
    assert "over which pairs of both kinds are dealt" in printed
    assert "warning" not in printed
    listed, packed = load_pair_list(images, tmp_path / "pairs.txt"), load_bin(tmp_path / "set.bin")
    assert packed.num_folds == 10
    assert [int(part.sum()) for part in np.array_split(packed.is_same, 10)] == [2] * 10
    pairs = [
        sorted((np.asarray(pair_set.images[2 * n]).tobytes(), np.asarray(pair_set.images[2 * n + 1]).tobytes(), flag)
               for n, flag in enumerate(pair_set.is_same.tolist()))
        for pair_set in (listed, packed)
    ]  # fmt: skip
    assert pairs[0] == pairs[1]


def test_kept_folds_of_one_kind_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_faces(tmp_path / "images")
    lines = ["Ann/Ann_0001.jpg Ann/Ann_0002.jpg 1\n"] * 15 + ["Ann/Ann_0001.jpg Bob/Bob_0001.jpg 0\n"] * 15
    (tmp_path / "pairs.txt").write_text("".join(lines))
    arguments = ["bin", images, tmp_path / "set.bin", "--pairs", tmp_path / "pairs.txt"]
    found = facts(capsys, *arguments)
    assert (found["keeps_folds"], found["folds_of_one_kind"]) == (True, 10)
    assert run(*arguments, "--overwrite") == 0
    assert "warning: 10 of the 10 folds that readers make hold pairs of one kind only" in capsys.readouterr().out


def test_images_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_faces(tmp_path / "images")
    (images / "Bob" / "Bob_0001.jpg").write_bytes(encode_jpeg(face(1)[:100]))
    (tmp_path / "pairs.txt").write_text(LFW)
    arguments = ["bin", images, tmp_path / "set.bin", "--pairs", tmp_path / "pairs.txt"]
    assert run(*arguments) == 2
    assert "Bob_0001.jpg: 100x112" in capsys.readouterr().err
    assert not (tmp_path / "set.bin").exists()
    assert run(*arguments, "--size", "112") == 0
    encoded, _ = read_bin(tmp_path / "set.bin", (tmp_path / "set.bin").read_bytes())
    assert bytes(encoded[0]) == (images / "Ann" / "Ann_0001.jpg").read_bytes()
    assert load_bin(tmp_path / "set.bin").images[3].shape == (112, 112, 3)


def test_killed_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bin(tmp_path / "set.bin", [encode_jpeg(face(n)) for n in range(4)], [True, False])
    with monkeypatch.context() as patch:
        patch.setattr(bin_command, "suffix_of", kill_at(bin_command.suffix_of, 3))
        killed(lambda: run("bin", tmp_path / "set.bin", tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    assert run("bin", tmp_path / "set.bin", tmp_path / "back") == 0
    assert len(list((tmp_path / "back" / "images").rglob("*.jpg"))) == 4


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_faces(tmp_path / "images")
    (tmp_path / "pairs.txt").write_text("1\nAnn\t1\t2\nAnn\t1\tDan\t1\n")
    for arguments, message in (
        ([images, tmp_path / "x.bin"], "name the list of pairs with --pairs"),
        ([tmp_path / "none", tmp_path / "x.bin"], "no such file or folder"),
        ([images, tmp_path / "x.bin", "--pairs", tmp_path / "pairs.txt"], "line 3: "),
        ([tmp_path / "pairs.txt", tmp_path / "x"], "pairs.txt"),
        ([images, images, "--pairs", tmp_path / "pairs.txt", "--overwrite"], "is already there: choose another name\n"),
        ([images, tmp_path / "no" / "x.bin", "--pairs", tmp_path / "pairs.txt"], "no such folder; make it first"),
    ):
        assert run("bin", *arguments) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "pairs.txt"]
