"""`subset` and `merge`: which images, under which labels, against what a dictionary says."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.records import make_image_folder, make_record_set, picture
from tests.tools.record_commands.runs import contents, facts, kill_at, killed, run
from tools.record_commands.selection import Selection, select
from utils import record_set, record_writer
from utils.images import encode_jpeg
from utils.record_set import write_record_set
from utils.record_writer import RecordWriter
from utils.recordio import RecordHeader, RecordReader, pack_record

COUNTS = [3, 1, 5, 2, 8, 4]


def images_of(folder: Path) -> list[tuple[int, bytes]]:
    with RecordReader(folder / "train.rec") as reader:
        return [(reader.label(key), bytes(reader.sample(key)[1])) for key in reader.image_keys.tolist()]


def class_map(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "class_map.txt").read_text().splitlines()]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return make_record_set(tmp_path / "whole", COUNTS)


def test_draws_are_nested_seeded_and_independent() -> None:
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 300, 5000))
    keys = np.arange(1, 5001)
    for name, few, many in (("num_images", 100, 900), ("num_identities", 20, 90), ("max_images", 2, 9)):
        small, large = (select(keys, labels, Selection(**{name: number}, seed=3)) for number in (few, many))
        assert not (small & ~large).any(), f"{name}: the smaller draw is no part of the larger one"
        assert (small == select(keys, labels, Selection(**{name: few}, seed=3))).all()
        assert (small != select(keys, labels, Selection(**{name: few}, seed=4))).any()
        order = rng.permutation(5000)  # the order of the records does not matter
        assert (select(keys[order], labels[order], Selection(**{name: few}, seed=3)) == small[order]).all()
    assert select(keys, labels, Selection(num_images=100)).sum() == 100
    assert len(np.unique(labels[select(keys, labels, Selection(num_identities=20))])) == 20
    counts = Counter(labels[select(keys, labels, Selection(max_images=2))].tolist())
    assert set(counts.values()) <= {1, 2}
    assert select(keys, labels, Selection(image_share=0.1)).sum() == 500
    drawn = select(keys, labels, Selection(identity_share=0.5))
    assert len(np.unique(labels[drawn])) == 150
    assert drawn.sum() == np.isin(labels, np.unique(labels[drawn])).sum()


def test_images_are_drawn_evenly() -> None:
    keys, labels = np.arange(40), np.repeat(np.arange(4), 10)
    hits = sum(select(keys, labels, Selection(max_images=3, seed=seed)).astype(int) for seed in range(2000))
    assert hits.sum() == 2000 * 12
    assert np.abs(hits / 2000 - 0.3).max() < 0.06  # six standard deviations


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--identities", "1,3-4"], {1: 1, 3: 2, 4: 8}),
        (["--min-images", "4"], {2: 5, 4: 8, 5: 4}),
        (["--max-images", "2"], {0: 2, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2}),
        (["--min-images", "4", "--max-images", "3", "--num-identities", "9"], {2: 3, 4: 3, 5: 3}),
        (["--keys", "keys.txt"], {0: 2, 4: 1}),
        (["--without", "keys.txt"], {0: 1, 1: 1, 2: 5, 3: 2, 4: 7, 5: 4}),
    ],
)
def test_what_a_subset_holds(
    options: list[str], expected: dict[int, int], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").write_text("3\n1\n14\n")
    assert run("subset", whole, tmp_path / "part", *options) == 0
    part, old = images_of(tmp_path / "part"), class_map(tmp_path / "part")
    assert old == sorted(expected)
    assert Counter(old[label] for label, _ in part) == expected
    everything = images_of(whole)
    restored = [(old[label], data) for label, data in part]
    assert [item for item in everything if item in set(restored)] == restored  # in order, bytes untouched
    assert run("verify", tmp_path / "part") == 0


def test_labels_can_be_kept(whole: Path, tmp_path: Path) -> None:
    assert run("subset", whole, tmp_path / "part", "--identities", "2,4", "--keep-labels") == 0
    with RecordReader(tmp_path / "part" / "train.rec") as reader:
        assert reader.class_counts().tolist() == [0, 0, 5, 0, 8, 0]
    assert not (tmp_path / "part" / "class_map.txt").exists()


def test_identities_by_name_from_a_set_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_image_folder(tmp_path / "images", [2, 3, 1])
    assert run("pack", images, tmp_path / "set") == 0
    assert run("shuffle", tmp_path / "set", tmp_path / "plain", "--layout", "plain") == 0
    (tmp_path / "who.txt").write_text("person_02\nperson_01\n")
    assert run("subset", tmp_path / "plain", tmp_path / "part", "--identities", tmp_path / "who.txt") == 0
    wanted = {(images / f"person_0{n}" / f"00{k}.jpg").read_bytes() for n, k in ((1, 0), (1, 1), (1, 2), (2, 0))}
    assert {data for _, data in images_of(tmp_path / "part")} == wanted
    assert class_map(tmp_path / "part") == [1, 2]
    (tmp_path / "who.txt").write_text("nobody\n")
    assert run("subset", tmp_path / "plain", tmp_path / "x", "--identities", tmp_path / "who.txt") == 2
    assert "no identity is named 'nobody'" in capsys.readouterr().err


def test_numbers_that_are_labels_and_names_of_others_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = zip([encode_jpeg(picture(number)) for number in range(4)], ["7/a", "7/b", "001/c", "2/d"], strict=True)
    (tmp_path / "set").mkdir()
    write_record_set(tmp_path / "set", [2, 1, 1], images, (16, 16))
    who = tmp_path / "who.txt"
    for lines, options, status, kept in (
        ("2\n001\n", [], 0, [1, 2]),  # both are names of the identities with these labels
        ("7\n", [], 2, "'7' is a label and also the name of the identity with label 0"),
        ("7\n", ["--identities-are", "labels"], 2, "7 is no label; the set has 0 .. 2"),
        ("7\n", ["--identities-are", "names"], 0, [0]),
        ("0\n", [], 0, [0]),  # a name of nobody
        ("2\nx\n", ["--identities-are", "labels"], 2, "not all of it are labels"),
        ("", [], 2, "nothing is left of its 4 images"),
    ):
        who.write_text(lines)
        assert (
            run("subset", tmp_path / "set", tmp_path / "part", "--identities", who, "--overwrite", *options) == status
        )
        said = capsys.readouterr().err
        assert class_map(tmp_path / "part") == kept if status == 0 else kept in said


def test_keys_of_another_set_are_not_overlooked(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys.txt").write_text("3\n99\n14\n0\n")
    assert run("subset", whole, tmp_path / "part", "--keys", tmp_path / "keys.txt") == 2
    assert "2 of its 4 keys are of no image of" in (said := capsys.readouterr().err)
    assert "such as 99; its images have keys in 1 .. 23" in said
    assert not (tmp_path / "part").exists()
    assert run("subset", whole, tmp_path / "part", "--without", tmp_path / "keys.txt") == 0
    assert "note: 2 keys of" in (said := capsys.readouterr().out)
    assert "such as 99: nothing was left out for them" in said
    assert len(images_of(tmp_path / "part")) == 21


def test_images_without_a_name_are_called_by_where_they_were(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts(capsys, "subset", whole, tmp_path / "named", "--identities", "1")["images_without_a_name"] == 0
    lines = (whole / "train.lst").read_text().splitlines(keepends=True)
    (whole / "train.lst").write_text("".join(lines[:4]))
    assert run("subset", whole, tmp_path / "part", "--identities", "1,3") == 0
    said = capsys.readouterr().out
    assert "note: 2 images have no name in a .lst; the new one calls them LABEL/KEY, their label and key in" in said
    names = [line.split("\t")[2] for line in (tmp_path / "part" / "train.lst").read_text().splitlines()]
    assert names == ["3.jpg", "3/10", "3/11"]
    assert run("merge", whole, tmp_path / "part", tmp_path / "both") == 0
    assert "note: 19 images have no name in a .lst; the new one calls them FOLDER/LABEL/KEY" in capsys.readouterr().out


def test_labels_behind_the_first_stay(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "train.rec", tmp_path / "train.idx") as writer:
        for key, label in enumerate([4, 2, 4]):
            vector = np.array([label, 0.25, key], dtype=np.float32)
            writer.write(key, pack_record(RecordHeader(3, vector, key), encode_jpeg(picture(key))))
    assert run("subset", tmp_path, tmp_path / "part") == 0
    with RecordReader(tmp_path / "part" / "train.rec") as reader:
        assert [reader.sample(key)[0].label.tolist() for key in (1, 2, 3)] == [[0, 0.25, 1], [1, 0.25, 0], [1, 0.25, 2]]


def test_what_subset_refuses(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.txt").write_text("1\nx\n")
    for options, message in (
        (["--identities", "7"], "7 is no label; the set has 0 .. 5"),
        (["--identities", "3-1"], "is no label"),
        (["--min-images", "99"], "nothing is left of its 23 images"),
        (["--keys", tmp_path / "keys.txt"], "'x' is no key"),
        (["--keys", tmp_path / "none.txt"], "cannot be read"),
        (["--identities", "ann"], "names of identities are not known"),
    ):
        assert run("subset", whole, tmp_path / "part", *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "part").exists()
    with pytest.raises(SystemExit):
        run("subset", whole, tmp_path / "part", "--share", "1.5")


def test_damaged_records_can_be_left_out(whole: Path, tmp_path: Path) -> None:
    with RecordReader(whole / "train.rec") as reader:
        offsets = [reader.offset(7), reader.offset(20)]
    data = bytearray((whole / "train.rec").read_bytes())
    data[offsets[0]] ^= 1
    data[offsets[1] + 32] ^= 255
    before = images_of(whole)
    (whole / "train.rec").write_bytes(data)
    assert run("verify", whole, "--bad-keys", tmp_path / "bad.txt") == 1
    assert (tmp_path / "bad.txt").read_text() == "7\n20\n"
    assert run("subset", whole, tmp_path / "sound", "--without", tmp_path / "bad.txt") == 0
    assert run("verify", tmp_path / "sound") == 0
    assert images_of(tmp_path / "sound") == [item for key, item in enumerate(before, 1) if key not in (7, 20)]


def two_sets(tmp_path: Path) -> tuple[Path, Path]:
    """ann 2, bob 1 and bob 3, cid 1; the second set's first bob is the first set's."""
    images = [encode_jpeg(picture(number)) for number in range(7)]
    first = zip(images[:3], ["ann/0.jpg", "ann/1.jpg", "bob/0.jpg"], strict=True)
    second = zip([images[2], *images[4:]], ["bob/a.jpg", "bob/b.jpg", "bob/c.jpg", "cid/a.jpg"], strict=True)
    for name, counts, items in (("one", [2, 1], first), ("two", [3, 1], second)):
        (tmp_path / name).mkdir()
        write_record_set(tmp_path / name, counts, items, (16, 16))
    return tmp_path / "one", tmp_path / "two"


def test_offset_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = two_sets(tmp_path)
    found = facts(capsys, "merge", one, two, tmp_path / "both")
    assert (found["images"], found["identities"], found["identities_joined"]) == (7, 4, 0)
    expected = images_of(one) + [(label + 2, data) for label, data in images_of(two)]
    assert images_of(tmp_path / "both") == expected
    table = (tmp_path / "both" / "identities.tsv").read_text()
    assert table == f"0\t{one}\t0\tann\n1\t{one}\t1\tbob\n2\t{two}\t0\tbob\n3\t{two}\t1\tcid\n"
    names = [line.split("\t")[2] for line in (tmp_path / "both" / "train.lst").read_text().splitlines()]
    assert names[:3] + names[-1:] == ["ann/0.jpg", "ann/1.jpg", "bob/0.jpg", "cid/a.jpg"]
    assert facts(capsys, "verify", tmp_path / "both")["num_findings"] == 0


def test_joined_by_name_and_without_duplicates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = two_sets(tmp_path)
    found = facts(capsys, "merge", one, two, tmp_path / "both", "--labels", "names", "--drop-duplicates")
    assert (found["images"], found["identities"], found["identities_joined"]) == (6, 3, 1)
    assert (found["duplicates_dropped"], found["duplicates_of_other_identities"]) == (1, 0)
    (_, *rest), last = images_of(two), images_of(two)[-1]
    assert images_of(tmp_path / "both") == images_of(one) + [(1, data) for _, data in rest[:-1]] + [(2, last[1])]
    found = facts(capsys, "merge", one, two, tmp_path / "off", "--drop-duplicates")
    assert (found["duplicates_dropped"], found["duplicates_of_other_identities"]) == (1, 1)


def test_an_identity_whose_images_were_all_duplicates_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = two_sets(tmp_path)
    assert run("subset", one, tmp_path / "bob", "--identities", "1") == 0
    found = facts(capsys, "merge", tmp_path / "bob", one, tmp_path / "both", "--drop-duplicates")
    assert (found["images"], found["identities"], found["duplicates_dropped"]) == (3, 2, 1)
    with RecordReader(tmp_path / "both" / "train.rec") as reader:
        assert reader.class_counts().tolist() == [1, 2]


def test_what_merge_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = two_sets(tmp_path)
    make_record_set(tmp_path / "large", [1], 20, 20)
    (two / "train.lst").unlink()
    for arguments, message in (
        ([one, two, tmp_path / "x", "--labels", "names"], "without names use --labels offset"),
        ([one, one, tmp_path / "x"], "a set is named twice"),
        ([one, tmp_path / "large", tmp_path / "x"], "images of different sizes: 16x16 in"),
        ([one, two, two, "--overwrite"], "the set that is read lies there"),
    ):
        assert run("merge", *arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["merge", "subset"])
def test_killed_nothing_looks_complete(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = two_sets(tmp_path)
    sets = [one, two] if command == "merge" else [one]
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", kill_at(RecordWriter.write, 3))
        killed(lambda: run(command, *sets, tmp_path / "new"))
    assert not {"train.rec", "train.idx", "property", "train.lst"} & set(contents(tmp_path / "new"))
    assert run(command, *sets, tmp_path / "new") == 0
    assert run(command, *sets, tmp_path / "whole") == 0
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")


def test_a_subset_takes_its_size_from_an_image_that_is_kept(whole: Path, tmp_path: Path) -> None:
    with RecordReader(whole / "train.rec") as reader:
        place = reader.offset(1) + 32
    (whole / "property").unlink()
    with (whole / "train.rec").open("r+b") as stream:  # the first image is damaged, and left out
        stream.seek(place)
        stream.write(bytes(16))
    (tmp_path / "without.txt").write_text("1\n")
    assert run("subset", whole, tmp_path / "sound", "--without", tmp_path / "without.txt") == 0


def test_a_long_list_of_labels_is_no_name_of_a_file(whole: Path, tmp_path: Path) -> None:
    assert run("subset", whole, tmp_path / "part", "--identities", ",".join(["0", "1"] * 4000)) == 0


def test_what_speaks_of_an_older_set_goes_with_it(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "part"
    assert run("subset", whole, output, "--identities", "1") == 0
    old = {path.name: path.read_bytes() for path in output.iterdir()}
    with monkeypatch.context() as patch:  # killed at work: the older set is as it was
        patch.setattr(record_set, "_write_identities", kill_at(record_set._write_identities, 1))
        killed(lambda: run("merge", whole, output, "--overwrite"))
    assert {name: (output / name).read_bytes() for name in old} == old
    with monkeypatch.context() as patch:  # killed among the renames: nothing old describes the new records
        patch.setattr(record_writer.os, "replace", kill_at(record_writer.os.replace, 2))
        killed(lambda: run("merge", whole, output, "--overwrite"))
    assert not {"class_map.txt", "train.lst", "property"} & {path.name for path in output.iterdir()}


def test_folders_of_any_name(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / os.fsdecode(b"a\n\xff")
    odd.mkdir()
    for name in ("train.rec", "train.idx", "property"):
        shutil.copy(whole / name, odd / name)
    assert facts(capsys, "merge", odd, whole, tmp_path / "both")["sets"] == 2
    lines = (tmp_path / "both" / "train.lst").read_bytes().splitlines()
    assert all(line.count(b"\t") == 2 for line in lines)
    assert (tmp_path / "both" / "identities.tsv").read_bytes().count(b"\t") % 3 == 0
    assert run("merge", odd, whole, odd / "new") == 0


def test_a_link_to_a_set_is_no_place_for_its_successor(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train.rec").symlink_to(whole / "train.rec")
    shutil.copy(whole / "train.idx", tmp_path / "linked" / "train.idx")
    assert run("shuffle", tmp_path / "linked", tmp_path / "linked", "--overwrite") == 2
