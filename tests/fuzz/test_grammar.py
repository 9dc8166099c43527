"""Documents from grammars instead of damage: only the promised errors, whatever hypothesis writes."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.pairs import PairError, load_pair_list
from eval.report import ReportError, write_report
from utils.config import ConfigError, load_config
from utils.image_header import image_size
from utils.numpy_pickle import PickledArray, load_arrays
from utils.pickle_grammar import PickleError
from utils.record_framing import RecordError
from utils.record_index import read_index

quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
keys = st.sampled_from(["kind", "step", "accuracy", "dataset", "tar_at_far", "loss", "lr", "protocol", "flip", "auc"])
lines = st.dictionaries(keys, st.sampled_from(["train", "verification"]) | documents, max_size=6)


@quickly
@given(records=st.lists(lines, max_size=4), config=documents, saved=documents)
def test_reports(tmp_path: Path, records: list[object], config: object, saved: object) -> None:
    (tmp_path / "verification").mkdir(exist_ok=True)
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    for name, document in (("config.json", config), ("run.json", config), ("verification/results.json", saved)):
        (tmp_path / name).write_text(json.dumps(document))
    with suppress(ReportError):
        assert write_report(tmp_path).is_file()


words = st.sampled_from(
    ["Ann", "1", "2", "²", "..", "/x", "A/b.jpg", "A/../b.jpg", "10 300", "\t", "\n", "\n", " "]
) | st.text(max_size=3)


@quickly
@given(text=st.lists(words | st.text(max_size=3), max_size=30).map("".join))
def test_pair_lists(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(PairError, match=r"pairs\.txt"):
        load_pair_list(tmp_path / "images", tmp_path / "pairs.txt")


@quickly
@given(
    rows=st.lists(st.tuples(st.integers(-1, 1 << 63), st.sampled_from("\t \n"), st.integers(-1, 1 << 63)), max_size=9)
)
def test_indices(tmp_path: Path, rows: list[tuple[int, str, int]]) -> None:
    (tmp_path / "train.idx").write_text("".join(f"{key}{between}{offset}\n" for key, between, offset in rows))
    sound = all(between == "\t" and 0 <= key < 10**18 and 0 <= offset < 10**18 for key, between, offset in rows)
    try:
        found = read_index(tmp_path / "train.idx")
        assert sound
        assert [list(column) for column in found] == [[row[0] for row in rows], [row[2] for row in rows]]
    except RecordError:
        assert not sound or not rows or len({row[0] for row in rows}) < len(rows)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text(max_size=4) | st.binary(max_size=4) | st.integers(-9, 1 << 31), inner, max_size=4),
)  # fmt: skip


@quickly
@given(value=plain, protocol=st.integers(2, 5))
def test_plain_pickles_come_back(value: object, protocol: int) -> None:
    assert load_arrays(pickle.dumps(value, protocol), "a test", dicts=True) == value


@quickly
@given(shape=st.lists(st.integers(0, 4), max_size=4), code=st.sampled_from(["u1", "<i2", ">u4", "<i8", "?"]),
       protocol=st.integers(2, 5), fortran=st.booleans())  # fmt: skip
def test_arrays_come_back(shape: list[int], code: str, protocol: int, fortran: bool) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(code)
    found = load_arrays(pickle.dumps(np.asfortranarray(array) if fortran else array, protocol), "a test")
    assert isinstance(found, PickledArray)
    assert found.value.dtype == array.dtype
    np.testing.assert_array_equal(found.value, array)


@quickly
@given(value=st.floats() | st.complex_numbers() | st.sets(st.integers(), min_size=1) | st.just(st.text))
def test_other_pickles_do_not(value: object) -> None:
    with pytest.raises(PickleError):
        load_arrays(pickle.dumps([value], 4), "a test", dicts=True)


@quickly
@given(
    name=st.sampled_from(["lr", "head", "head_options.margin", "val_targets", "fp16", "x", ""]),
    text=st.text(max_size=20),
)
def test_overrides(name: str, text: str) -> None:
    with suppress(ConfigError):
        assert load_config("quickstart", [f"{name}={text}"]).name == "quickstart"


@quickly
@given(
    data=st.binary(max_size=60),
    start=st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF????WEBPVP8X"]),
)
def test_image_headers(data: bytes, start: bytes) -> None:
    size = image_size(start + data)
    assert size is None or (len(size) == 2 and min(size) >= 0)
