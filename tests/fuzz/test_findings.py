"""What fuzzing and reading the parsers found, a test each: files that crashed, hung, filled memory or leaked."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from eval.bin_files import read_bin
from eval.pairs import PairError, load_bin, load_pair_list
from eval.report import ReportError, write_report
from sources.base import SourceError
from sources.cifar import _read_pickle
from sources.folder import FolderSource
from sources.idx import read_idx
from tests.eval.runs import make_run
from tests.records import image_record, make_image_folder, picture, write_set
from utils.images import encode_jpeg
from utils.record_layout import read_property
from utils.recordio import RecordError, RecordReader

BIN = Path("some/set.bin")


@pytest.mark.parametrize(
    "text", ["²,112,112", "9,9,²", "9" * 5000 + ",1,1", "5,0,112", "5,112,20000", "99999999,112,112", "-1,1,1", "\xff"]
)
def test_property_numbers_that_int_refuses_or_no_memory_holds(text: str, tmp_path: Path) -> None:
    (tmp_path / "property").write_text(text, encoding="latin-1" if text == "\xff" else "utf-8")
    with pytest.raises(RecordError, match="expected num_classes,height,width"):
        read_property(tmp_path / "property")


@pytest.mark.parametrize("edge", [np.nan, np.inf, -np.inf, 3e38])
def test_identity_records_with_spans_that_are_no_numbers(edge: float, tmp_path: Path) -> None:
    spans = image_record(np.array([1.0, edge], dtype=np.float32), 2, b"")
    header = image_record(np.array([2.0, 3.0], dtype=np.float32), 0, b"")
    rec = write_set(tmp_path, {0: header, 1: image_record(0.0, 1), 2: spans})
    assert RecordReader(rec).class_counts().tolist() == [1], "the images themselves are counted"


@pytest.mark.parametrize(
    "header", ["²\nAnn 1 2\n", "1\nAnn ² 1\nAnn 1 Bob 1\n", "1\nAnn " + "9" * 5000 + " 1\nAnn 1 Bob 1\n"]
)
def test_pair_list_numbers_that_int_refuses(header: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(header)
    with pytest.raises(PairError, match="line"):
        load_pair_list(tmp_path, tmp_path / "pairs.txt")


@pytest.mark.parametrize(
    "text", ["../secret/a.jpg\nA/b.jpg\n", "/etc/a.jpg\nA/b.jpg\n", "A/../../x.jpg\nA/b.jpg\n", "1\n.. 1 2\nA 1 B 1\n",
             "1\n/etc/x 1 2\nAnn 1 Bob 1\n", "Ann/\0.jpg\nAnn/b.jpg\n"],
)  # fmt: skip
def test_names_in_a_pair_list_lead_nowhere_else(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(PairError, match="leads out of the folder of images"):
        load_pair_list(tmp_path / "images", tmp_path / "pairs.txt")


def test_links_in_a_folder_of_images_are_followed_and_pipes_are_not_read(tmp_path: Path) -> None:
    """Data sets are often linked, on purpose; a pipe would be read for ever."""
    make_image_folder(tmp_path / "real", [2])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "person_00").symlink_to(tmp_path / "real" / "person_00")
    assert len(FolderSource(tmp_path / "set")) == 2
    (tmp_path / "pairs.txt").write_text("person_00/000.jpg\nperson_00/001.jpg\n")
    assert len(load_pair_list(tmp_path / "set", tmp_path / "pairs.txt").images) == 2
    os.mkfifo(tmp_path / "real" / "person_00" / "002.jpg")
    assert len(FolderSource(tmp_path / "set")) == 2
    (tmp_path / "pairs.txt").write_text("person_00/000.jpg\nperson_00/002.jpg\n")
    with pytest.raises(PairError, match="is no file"):
        load_pair_list(tmp_path / "set", tmp_path / "pairs.txt")


def test_a_bin_whose_flags_are_an_array_without_a_length() -> None:
    with pytest.raises(PairError, match="expected"):
        read_bin(BIN, pickle.dumps(([b"x"] * 2, np.array(True)), protocol=4))


def test_one_long_image_named_often_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million references to a megabyte would be a terabyte of hashing."""
    image, hashed = b"x" * 1000, []
    (tmp_path / "set.bin").write_bytes(pickle.dumps(([image] * 2000, [True] * 1000), protocol=4))
    real = __import__("hashlib").sha256
    monkeypatch.setattr("eval.pairs.hashlib.sha256", lambda data: hashed.append(len(data)) or real(data))
    pairs = load_bin(tmp_path / "set.bin")
    assert sum(hashed) < 20_000
    assert pairs.first_index.tolist() == [0] * 2000


def test_images_that_overlap_are_refused() -> None:
    """Many arrays over one byte string would each be hashed and decoded."""
    function, data = b"cnumpy.core.numeric\n_frombuffer\nq\x00", b"C\xc8" + b"x" * 200 + b"q\x01"
    dtype, rest = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85Rq\x02", b"K\xc8\x85X\x01\x00\x00\x00CtR"
    first, again = function + b"(" + data + dtype + rest, b"h\x00(h\x01h\x02" + rest
    with pytest.raises(PairError, match="its images overlap"):
        read_bin(BIN, b"\x80\x03(](" + first + again * 19 + b"e](" + b"\x88" * 10 + b"et.")


def test_a_cifar_pickle_cannot_announce_an_array(tmp_path: Path) -> None:
    """numpy.ndarray called with a shape took that memory before."""

    class Huge:
        def __reduce__(self) -> tuple[object, ...]:
            return np.ndarray, ((1 << 40,), "u1")

    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Huge(), b"labels": [1]}, protocol=2))
    with pytest.raises(SourceError, match="expected uint8"):
        _read_pickle(tmp_path / "test_batch", b"labels")


def test_a_key_nested_a_million_times_does_not_end_the_process(tmp_path: Path) -> None:
    """Hashing such a tuple overflows the C stack."""
    for key in (b")" + b"\x85" * 1_000_000, b"\x8a\x09" + b"\xff" * 8 + b"\x00"):
        (tmp_path / "test_batch").write_bytes(b"\x80\x02}" + key + b"K\x01s.")
        with pytest.raises(SourceError, match="keys are text or small whole numbers"):
            _read_pickle(tmp_path / "test_batch", b"labels")


def test_idx_headers_are_compared_with_the_file(tmp_path: Path) -> None:
    header = struct.pack(">HBB3I", 0, 8, 3, 1 << 10, 1 << 10, 1 << 10)
    (tmp_path / "images").write_bytes(header + bytes(100))
    with pytest.raises(SourceError, match=r"announces 1073741824 bytes .* the file has 116 and may hold at most 116"):
        read_idx(tmp_path / "images", 3)
    (tmp_path / "images.gz").write_bytes(gzip.compress(header + bytes(100)))
    with pytest.raises(SourceError, match="may hold at most 67108864"):
        read_idx(tmp_path / "images.gz", 3)


def test_an_idx_header_of_no_images_of_impossible_size(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 0, (1 << 32) - 1, (1 << 32) - 1))
    with pytest.raises(SourceError, match="announces 0 bytes"):
        read_idx(tmp_path / "images", 3)


def test_a_report_shows_no_file_from_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path / "other")
    folder = tmp_path / "run" / "verification"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    names = ("../../other/verification/memory", str(tmp_path / "other" / "verification" / "memory"), "x" * 5000)
    (folder / "results.json").write_text(json.dumps({"targets": {name: {} for name in names}}))
    page = write_report(tmp_path / "run").read_text()
    assert "data:image/jpeg" not in page
    assert "No scores of pairs are saved here" in page


@pytest.mark.parametrize(
    "line", [{"step": "x"}, {"accuracy": []}, {"tar_at_far": {"x": 1, "0.1": None}}, {"dataset": "\ud800"},
             {"step": 10**400}, {"accuracy": "high", "dataset": {}}, {"loss": True, "tar_at_far": 3},
             {"step": 2**70}, {"step": -1.5}, {"loss": 5e-324, "accuracy": 1e308}, {"step": 2**52}, {"step": 2**53},
             {"deep": json.loads("[" * 100 + "]" * 100)}],
)  # fmt: skip
def test_a_report_of_strange_metrics_is_written(line: dict[str, object], tmp_path: Path) -> None:
    for kind in ("train", "verification"):
        record = {"kind": kind, "step": 1, "dataset": "lfw", "protocol": "insightface", "accuracy": 0.5, **line}
        (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
        assert write_report(tmp_path).is_file()


@pytest.mark.parametrize(
    "saved", [{"targets": []}, {"targets": {"a": None}}, {"targets": {"a": {"protocols": {"b": 3, "c": {"auc": "x"}}}}}]
)
def test_a_report_of_strange_results_is_written(saved: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"val_targets": [1, "lfw", None], "name": ["x"]}))
    (tmp_path / "run.json").write_text(
        json.dumps({"changes": [3, {"changed": 4}], "fingerprint": {"code": {"files": 3}}})
    )
    (tmp_path / "verification").mkdir()
    (tmp_path / "verification" / "results.json").write_text(json.dumps(saved))
    assert write_report(tmp_path).is_file()


def test_deeply_nested_json_is_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ReportError, match="not JSON"):
        write_report(tmp_path)


def test_a_small_jpeg_that_announces_gigabytes(tmp_path: Path) -> None:
    data = bytearray(encode_jpeg(picture(0)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 30000, 30000)
    folder = make_image_folder(tmp_path, [1])
    (folder / "person_00" / "000.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=r"announce an image of 30000x30000 pixels; more than 100,000,000 are refused"):
        FolderSource(folder)
