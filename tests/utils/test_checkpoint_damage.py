"""Damaged checkpoints: found by size and hash before loading, passed over, put aside, never lost. No whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ranks import RankPool
from tests.utils.test_checkpoint import save
from utils.checkpoint_choice import choose_checkpoint
from utils.checkpoint_folder import complete_checkpoints, partial_of, prepare, prune, put_in_place, set_aside
from utils.checkpoint_manifest import (
    MANIFEST,
    CheckpointError,
    DamagedError,
    FileRecord,
    check_file,
    file_records,
    read_manifest,
    write_manifest,
)
from utils.files import sha256_of


def flip(path: Path, bit: int | None = None) -> None:
    """Inverts one bit of a file, by default in its middle."""
    content = bytearray(path.read_bytes())
    place = len(content) * 4 if bit is None else bit
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def save_three(folder: str) -> None:
    for step in (1, 2, 3):
        save(folder, step, 3)


def choose(folder: str, rank_count: int) -> tuple[str | None, list[str]]:
    import torch.distributed as dist

    choice = choose_checkpoint(Path(folder), dist.get_rank(), rank_count)
    return choice.path and choice.path.name, choice.lines


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("__0_0.distcp", "the content of __0_0.distcp was changed"),
        ("__1_0.distcp", "the content of __1_0.distcp was changed"),
        (".metadata", "the content of .metadata was changed"),
        ("manifest.json", "manifest.json"),
    ],
)
def test_one_flipped_bit_in_any_file_sends_all_ranks_to_the_one_before(
    ranks: RankPool, tmp_path: Path, name: str, what: str
) -> None:
    ranks.run(2, save_three, str(tmp_path))
    damaged = tmp_path / "step_000000003"
    flip(damaged / name)
    before = (damaged / name).read_bytes()
    results = ranks.run(2, choose, str(tmp_path), 2)
    assert results[0] == results[1]
    chosen, lines = results[0]
    assert chosen == "step_000000002"
    assert len(lines) == 1
    assert lines[0].startswith(f"resume: step_000000003 is damaged ({what}")
    assert lines[0].endswith("put aside as damaged_step_000000003, step_000000002 is used instead")
    assert (tmp_path / "damaged_step_000000003" / name).read_bytes() == before
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_000000001", "step_000000002"]
    assert ranks.run(1, choose, str(tmp_path), 1)[0] == ("step_000000002", [])


def test_all_damaged_is_an_error_on_all_ranks_and_changes_nothing(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(2, save_three, str(tmp_path))
    flip(tmp_path / "step_000000003" / "__0_0.distcp")
    (tmp_path / "step_000000002" / "manifest.json").unlink()
    (tmp_path / "step_000000001" / "__1_0.distcp").unlink()
    names = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CheckpointError) as caught:
        ranks.run(3, choose, str(tmp_path), 3)
    text = str(caught.value)
    assert "all checkpoints are damaged" in text
    assert "step_000000003: the content of __0_0.distcp was changed" in text
    assert "step_000000002: manifest.json cannot be read" in text
    assert "step_000000001: __1_0.distcp should hold" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def sound_folder(folder: Path, content: bytes = b"weights") -> Path:
    """A checkpoint of one file, without torch."""
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(content)
    record = FileRecord(len(content), sha256_of(folder / "__0_0.distcp"))
    step = int(folder.name[-9:]) if folder.name[-9:].isdigit() else 1
    write_manifest(folder, {"__0_0.distcp": record}, step, 1, "2", {"score": None})
    return folder


def test_any_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    path = sound_folder(tmp_path / "step_000000001")
    clean = (path / MANIFEST).read_bytes()
    unseen = []
    for bit in range(0, len(clean) * 8, 13):  # 13: over time each bit of a byte
        flip(path / MANIFEST, bit)
        try:
            read_manifest(path)
        except DamagedError:
            continue
        finally:
            (path / MANIFEST).write_bytes(clean)
        unseen.append(bit)
    assert unseen == []
    record = file_records(path, read_manifest(path))["__0_0.distcp"]
    assert check_file(path, "__0_0.distcp", record) is None


@pytest.mark.parametrize(
    "content",
    [
        "[]", "null", "[" * 100_000, "{}", '{"format": 2}', '{"format": 1, "step": 1, "progress": {}}',
        '{"format": 1, "step": 1, "progress": {}, "files": []}',
        '{"format": 1, "step": 1, "progress": {}, "files": {"../other": 3}}',
        '{"format": 1, "step": 1, "progress": {}, "files": {"a\\u0000b": 3}}',
        '{"format": 1, "step": 1, "progress": {}, "files": {"a": true}}',
        '{"format": 1, "step": 1, "progress": {}, "files": {"a": {"size": -1}}}',
        '{"format": 1, "step": 1, "progress": [], "files": {"a": 1}}',
        '{"format": 1, "step": 1, "files": {"a": 1}}',
        '{"format": 3, "step": 1, "progress": {}, "files": {"a": 1}}',
    ],
)  # fmt: skip
def test_a_manifest_of_anything_else_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "\\ud800"])
def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path: Path, name: str) -> None:
    content = '{"format": 1, "step": 1, "progress": {}, "files": {"' + name + '": 3}}'
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DamagedError, match="should hold 3 bytes but is missing"):
        read_manifest(tmp_path)


def test_format_1_is_read_and_a_later_one_refused_without_calling_it_damage(tmp_path: Path) -> None:
    path = sound_folder(tmp_path / "step_000000001")
    old = {"format": 1, "step": 1, "files": {"__0_0.distcp": 7}, "progress": {"steps_done": 1}}
    (path / MANIFEST).write_text(json.dumps(old))
    assert read_manifest(path)["progress"] == {"steps_done": 1}
    assert check_file(path, "__0_0.distcp", file_records(path, old)["__0_0.distcp"]) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.checkpoint_manifest.FORMAT", 3)
        write_manifest(path, {"__0_0.distcp": FileRecord(7, "")}, 1, 1, "2", {})
    with pytest.raises(CheckpointError, match=r"format 3, this version reads 1 \.\. 2") as caught:
        read_manifest(path)
    assert not isinstance(caught.value, DamagedError)


def scored(folder: Path, step: int, score: float | None) -> Path:
    path = folder / f"step_{step:09d}"
    path.mkdir(parents=True)
    write_manifest(path, {"a": FileRecord(0, "")}, step, 1, "2", {"score": score})
    return path


def test_the_best_stay_beside_the_newest(tmp_path: Path) -> None:
    scores = [0.5, 0.9, None, 0.7, 0.9, 0.6, None]
    for step, score in enumerate(scores, 1):
        prune(scored(tmp_path, step, score), 2, 2)
    kept = [int(path.name[5:]) for path in complete_checkpoints(tmp_path)]
    assert kept == [2, 5, 6, 7], "the newest two, and the two with .9"
    prune(scored(tmp_path, 8, 0.9), 1, 1)
    assert [int(path.name[5:]) for path in complete_checkpoints(tmp_path)] == [2, 8], "of equals the earliest"
    prune(scored(tmp_path, 9, 0.1), 1, 0)
    assert [int(path.name[5:]) for path in complete_checkpoints(tmp_path)] == [9]


def test_a_crash_between_the_renames_of_the_same_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = sound_folder(tmp_path / "step_000000004", b"old")
    partial = sound_folder(partial_of(final), b"new")

    calls = []
    with monkeypatch.context() as patch:

        def replace(source: Path, target: Path) -> None:
            calls.append(target)
            if len(calls) == 2:
                raise KeyboardInterrupt
            source.rename(target)

        patch.setattr("utils.checkpoint_folder.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(partial, final)
    assert not final.exists()
    prepare(tmp_path, partial_of(tmp_path / "step_000000009"))
    assert (final / "__0_0.distcp").read_bytes() == b"old"
    assert not partial.exists()


def test_damaged_ones_of_the_same_step_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for number in (1, 2):
        aside = set_aside(sound_folder(tmp_path / "step_000000004", bytes([number])))
        assert (aside / "__0_0.distcp").read_bytes() == bytes([number])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged_step_000000004", "damaged_step_000000004.2"]
