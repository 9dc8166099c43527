"""`shuffle`: another order in the file, the same set for readers by key; or images alone with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sources import open_source
from tests.records import make_image_folder, make_record_set, write_set
from tests.tools.record_commands.runs import contents, facts, kill_at, killed, run
from tools.record_commands import shuffle
from utils.recordio import RecordHeader, RecordReader, pack_record

COUNTS = [3, 0, 4, 2, 6]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    images = make_image_folder(tmp_path / "images", [3, 1, 4, 2, 6])
    assert run("pack", images, tmp_path / "set") == 0
    return tmp_path / "set"


def test_keeping_the_layout_changes_places_only(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = facts(capsys, "shuffle", packed, tmp_path / "new", "--seed", "4")
    assert (found["images"], found["passes"]) == (16, 1)
    before, after = contents(packed), contents(tmp_path / "new")
    assert sorted(after) == sorted(before)
    assert (after["property"], after["train.lst"]) == (before["property"], before["train.lst"])
    with RecordReader(packed / "train.rec") as old, RecordReader(tmp_path / "new" / "train.rec") as new:
        assert new.keys.tolist() == list(range(22))
        assert all(new.read(key) == old.read(key) for key in range(22))
        assert new.class_counts().tolist() == [3, 1, 4, 2, 6]
        offsets = new.offsets(new.keys)
        assert offsets[0] == 0  # the set header stays in front, the identity records behind
        assert offsets[17:].tolist() == sorted(offsets[17:]) == sorted(offsets)[17:]
        assert offsets[1:17].tolist() != sorted(offsets[1:17])
    for folder in (packed, tmp_path / "new"):
        assert facts(capsys, "verify", folder)["num_findings"] == 0
    old_source, new_source = open_source(str(packed)), open_source(str(tmp_path / "new"))
    assert all(np.array_equal(old_source.read(n)[0], new_source.read(n)[0]) for n in range(16))
    index = (tmp_path / "new" / "train.idx").read_bytes()
    (tmp_path / "new" / "train.idx").unlink()
    assert run("verify", tmp_path / "new", "--repair-index") == 0
    assert (tmp_path / "new" / "train.idx").read_bytes() == index


def test_the_plain_layout_holds_images_with_their_labels(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts(capsys, "shuffle", packed, tmp_path / "new", "--layout", "plain")
    names = dict(line.split("\t", 1) for line in (packed / "train.lst").read_text().splitlines())
    with RecordReader(packed / "train.rec") as old, RecordReader(tmp_path / "new" / "train.rec") as new:
        assert (new.layout, new.keys.tolist(), new.num_classes) == ("im2rec", list(range(16)), 5)
        offsets = new.offsets(new.keys).tolist()
        assert offsets == sorted(offsets)  # who goes through the file meets key after key
        wanted = sorted((old.label(key), bytes(old.sample(key)[1])) for key in range(1, 17))
        samples = [new.sample(key) for key in range(16)]
        assert sorted((int(header.first_label), bytes(payload)) for header, payload in samples) == wanted
        assert [header.id for header, _ in samples] == list(range(16))
        assert [header.label for header, _ in samples] != sorted(header.label for header, _ in samples)
        listed = [line.split("\t") for line in (tmp_path / "new" / "train.lst").read_text().splitlines()]
        for key, label, name in listed:
            old_key = next(old_key for old_key, line in names.items() if line == f"{label}\t{name}")
            assert bytes(new.sample(int(key))[1]) == bytes(old.sample(int(old_key))[1])
    assert facts(capsys, "verify", tmp_path / "new")["num_findings"] == 0


def test_vectors_of_labels_become_their_first_in_the_plain_layout(tmp_path: Path) -> None:
    bodies = {
        key: pack_record(RecordHeader(0, np.array([key % 3, 7.5], np.float32), key), b"x" * (key + 1))
        for key in range(9)
    }
    rec = write_set(tmp_path, bodies)
    assert run("shuffle", rec, tmp_path / "plain", "--layout", "plain") == 0
    assert run("shuffle", rec, tmp_path / "kept") == 0
    with RecordReader(tmp_path / "plain" / "train.rec") as plain, RecordReader(tmp_path / "kept" / "train.rec") as kept:
        found = sorted((len(plain.sample(key)[1]), plain.sample(key)[0].label) for key in range(9))
        assert found == [(key + 1, float(key % 3)) for key in range(9)]
        assert all(kept.read(key) == bodies[key] for key in range(9))


def test_memory_changes_nothing_and_the_seed_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record_set(tmp_path / "set", COUNTS)
    with RecordReader(tmp_path / "set" / "train.rec") as reader:
        for name, seed, memory in (("a", 1, 1 << 30), ("b", 1, 1000), ("c", 2, 1 << 30)):
            (tmp_path / name).mkdir()
            shuffle.shuffle_set(reader, tmp_path / name, seed=seed, layout="keep", memory=memory)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["train.rec"] != contents(tmp_path / "c")["train.rec"]


@pytest.mark.parametrize(("target", "number"), [("write_shuffled", 1), ("write_index", 1), ("write_property", 1)])
def test_killed_it_never_looks_complete(
    target: str, number: int, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shuffle, target, kill_at(getattr(shuffle, target), number))
        killed(lambda: run("shuffle", packed, tmp_path / "new"))
    assert "property" not in contents(tmp_path / "new")
    assert run("shuffle", packed, tmp_path / "new", "--overwrite") == 0
    assert run("shuffle", packed, tmp_path / "whole") == 0
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")


def test_what_is_refused(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shuffle", packed, packed, "--overwrite") == 2
    assert "the set that is read lies there" in capsys.readouterr().err
    assert run("shuffle", tmp_path / "none", tmp_path / "new") == 2
    assert "give a folder that holds train.rec" in capsys.readouterr().err
    lines = (packed / "train.idx").read_text().splitlines(keepends=True)
    (packed / "train.idx").write_text("".join(lines[:-1]))
    assert run("shuffle", packed, tmp_path / "new") == 2
    assert "`verify` tells what is wrong" in capsys.readouterr().err
    assert not (tmp_path / "new" / "train.rec").exists()
    with pytest.raises(SystemExit):
        run("shuffle", packed, tmp_path / "new", "--memory", "12")
    assert "give bytes, or like 512M" in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_among_the_last_renames_there_is_no_set_or_a_whole_one(
    number: int, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "plain"
    with monkeypatch.context() as patch:  # .idx.partial, property, .lst, .idx, .rec
        patch.setattr(shuffle.os, "replace", kill_at(shuffle.os.replace, number))
        killed(lambda: run("shuffle", packed, output, "--layout", "plain"))
    assert not (output / "train.rec").exists()
    assert run("shuffle", packed, output, "--layout", "plain") == 0
    names = {"train.rec", "train.idx", "train.lst", "property"}
    assert names == {path.name for path in output.iterdir()}
