"""What a fingerprint notices, what it lets pass, and how a difference reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sources import open_source
from sources.synthetic import SyntheticSource
from tests.ranks import RankPool
from tests.training.runs import FORMAT, make_run
from training import fingerprint
from training.fingerprint import changes, code_fingerprint, fingerprint_changes, sample_hash
from training.provenance import write_provenance
from utils.images import ImageFormat
from utils.record_set import write_record_set


def fingerprint_of(**keys: Any) -> dict[str, Any]:
    return make_run(**keys).fingerprint


def changed_between(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    one, other = make_run(**first), make_run(**second)
    return fingerprint_changes({"fingerprint": json.loads(json.dumps(one.fingerprint))}, other)


def changed_from_an_old_checkpoint() -> list[str]:
    run = make_run()
    return fingerprint_changes({"config": {**run.config.to_dict(), "lr": 9.0}}, run)


def provenance_of(folder: str) -> list[Any]:
    written = []
    for arguments in ({}, {"resume": True}, {"resume": True, "lr": 0.5}, {"resume": True, "lr": 0.5}, {}):
        write_provenance(make_run(output=folder, **arguments), ["configs/x"])
        written.append(json.loads((Path(folder) / "run.json").read_text())["changes"])
    return written


def test_it_is_plain_equal_on_all_ranks_and_names_all_four(ranks: RankPool) -> None:
    one, other = ranks.run(2, fingerprint_of)
    assert one == other == json.loads(json.dumps(one))
    assert set(one) == {"code", "config", "data", "environment"}
    assert one["environment"]["ranks"] == 2
    assert list(one["environment"]["devices"].values()) == [2]
    assert one["environment"]["threads"] == 1
    assert one["data"]["images"] == 48
    assert {"train.py", "dataset.py", "training/step.py", "losses/statistics.py"} <= set(one["code"]["files"])
    assert not any(name.startswith(("tests/", "tools/", "benchmarks/")) for name in one["code"]["files"])


def test_what_changed_is_told_line_by_line(ranks: RankPool) -> None:
    # What a run is called, where it lies and who reads may change without a word.
    free = {"num_workers": 1, "output": "elsewhere", "keep_checkpoints": 5, "frequent": 3, "resume": True}
    assert ranks.run(1, changed_between, {}, free) == [[]]
    lines = ranks.run(1, changed_between, {}, {"lr": 0.05, "head": "cosface", "head_options": {"margin": 0.1}})[0]
    assert sorted(lines) == [
        "resume: changed since then: config: head 'softmax' -> 'cosface'",
        "resume: changed since then: config: head_options {} -> {'margin': 0.1}",
        "resume: changed since then: config: lr 0.1 -> 0.05",
    ]
    assert ranks.run(1, changed_from_an_old_checkpoint) == [["resume: changed since then: config: lr 9.0 -> 0.1"]]


def test_groups_and_how_they_read() -> None:
    old = {
        "code": {"commit": "aaa", "tree_sha256": "1", "files": {"a.py": "1", "b.py": "1", "c.py": "1"}},
        "data": {"images": 10, "content_sha256": "0" * 64, "path": "here"},
        "environment": {"torch": "2.12", "threads": 2, "gone": 1},
    }
    new = {
        "code": {"commit": "bbb", "tree_sha256": "2", "files": {"a.py": "1", "b.py": "2", "d.py": "1"}},
        "data": {"images": 12, "content_sha256": "f" * 64, "path": "there"},
        "environment": {"torch": "2.13", "threads": [1, 2], "new": 1},
    }
    assert changes(old, new) == [
        "code: commit aaa -> bbb", "code: b.py differs", "code: c.py is gone", "code: d.py is new",
        "data: images 10 -> 12", "data: content_sha256 000000000000 -> ffffffffffff",
        "environment: torch '2.12' -> '2.13'", "environment: threads 2 -> [1, 2]",
    ]  # fmt: skip
    assert changes(new, new) == []
    same_files = {"code": {**old["code"], "commit": "ccc"}}
    assert changes({"code": old["code"]}, same_files) == [], "another commit of the same files is the same code"
    many = {"config": {f"key{n}": n for n in range(30)}}
    assert changes(many, {"config": dict.fromkeys(many["config"], -1)})[-1] == "config: and 18 more"
    for damaged in ({}, {"code": None, "data": 3}, {"config": []}):
        assert changes(damaged, new) == []
    assert changes({"code": {"tree_sha256": 3, "files": 4, "commit": []}}, new)[1:] == [
        f"code: {name}.py is new" for name in "abd"
    ]


def test_an_edit_without_a_commit_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*fingerprint.MODULES, "losses/head.py", "utils/deep/er.py", "tests/test_x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)

    def look() -> dict[str, Any]:
        code_fingerprint.cache_clear()
        return {"code": code_fingerprint()}

    try:
        before = look()
        assert before["code"]["commit"] is None
        assert set(before["code"]["files"]) == {"train.py", "dataset.py", "losses/head.py", "utils/deep/er.py"}
        (tmp_path / "tests/test_x.py").write_text("2\n")
        assert changes(before, look()) == []
        (tmp_path / "utils/deep/er.py").write_text("2\n")
        assert changes(before, look()) == ["code: utils/deep/er.py differs"]
    finally:
        code_fingerprint.cache_clear()


def test_another_data_set_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    def packed(name: str, byte: int) -> str:
        folder = tmp_path / name
        folder.mkdir()
        images = ((bytes([byte]) * 9000, f"{n}.jpg") for n in range(20))
        write_record_set(folder, [10, 10], images, (8, 8))
        return hash_of(folder / "train.rec")

    def hash_of(path: Path) -> str:
        return sample_hash(SyntheticSource(), path)

    first = packed("a", 1)
    assert first == hash_of(tmp_path / "a" / "train.rec") == packed("b", 1)
    assert first != packed("c", 2)
    record = tmp_path / "a" / "train.rec"
    for place in (0, 100_000, record.stat().st_size - 1):  # the first byte, one between, the last
        data = bytearray(record.read_bytes())
        data[place] ^= 1
        record.write_bytes(data)
        assert hash_of(record) != first
        data[place] ^= 1
        record.write_bytes(data)
    record.write_bytes(record.read_bytes() + b"\0")
    assert hash_of(record) != first


def test_sources_without_one_file_are_sampled_image_by_image() -> None:
    nowhere = Path("synthetic")
    first = sample_hash(SyntheticSource(7, 100, FORMAT), nowhere)
    assert first == sample_hash(SyntheticSource(7, 100, FORMAT), nowhere)
    others = [(8, 100, FORMAT), (7, 101, FORMAT), (7, 100, ImageFormat(8, 9, 3))]
    assert len({first, *(sample_hash(SyntheticSource(*other), nowhere) for other in others)}) == 4


def test_a_large_file_costs_a_few_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.rec"
    with path.open("wb") as file:
        file.truncate(60 * 10**9)
    sizes: list[int] = []

    class Digest:
        update = staticmethod(lambda data: sizes.append(len(data)))
        hexdigest = staticmethod(str)

    monkeypatch.setattr(fingerprint.hashlib, "sha256", Digest)
    sample_hash(SyntheticSource(), path)
    assert sizes == [len("60000000000")] + [64 << 10] * 64


def test_a_damaged_image_does_not_stop_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    import cv2

    cv2.imwrite(str(tmp_path / "a" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "b" / "2.png").write_bytes(b"no image")
    source = open_source(str(tmp_path))
    first = sample_hash(source, tmp_path)
    cv2.imwrite(str(tmp_path / "b" / "2.png"), np.zeros((8, 8, 3), np.uint8))
    assert sample_hash(source, tmp_path) != first


def test_run_json_remembers_what_changed_at_each_continuation(ranks: RankPool, tmp_path: Path) -> None:
    begun, unchanged, changed, again, anew = ranks.run(1, provenance_of, str(tmp_path))[0]
    assert begun == unchanged == anew == []
    assert changed == again == [{"command": "python train.py configs/x", "changed": ["config: lr 0.1 -> 0.5"]}]
