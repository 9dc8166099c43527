"""Saved embeddings: what is written is read, foreign files are read where they can be, damage is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eval.embedding_set import EmbeddingSet, EmbeddingSetError, load_embedding_set, save_embedding_set
from utils.errors import DataError

FORMATS = [".npz", ".parquet"]


def made_set(count: int = 5, width: int = 8) -> EmbeddingSet:
    random = np.random.default_rng(0)
    return EmbeddingSet(
        random.standard_normal((count, width)).astype(np.float32),
        np.array([f"Ann/photo {index} ä.jpg" for index in range(count)]),
        np.array([0, 1, -1, 1, 0][:count], dtype=np.int64),
        np.array(["Ann", "Bob"]),
        np.array([0.9, np.nan, 0.5, 0.25, np.nan][:count], dtype=np.float32),
        {"command": "python -m tools.embed x", "flip": True},
    )


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("count", [5, 1])
def test_what_is_written_is_read(tmp_path, suffix, count):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    before = made_set(count)
    save_embedding_set(tmp_path / f"a{suffix}", before)
    after = load_embedding_set(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(after.embeddings, before.embeddings)
    np.testing.assert_array_equal(after.detector_scores, before.detector_scores)
    assert after.names.tolist() == before.names.tolist()
    assert after.about == before.about

    def who(group):
        return [None if label < 0 else str(group.identities[label]) for label in group.labels]

    assert who(after) == who(before)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"a{suffix}"]


def test_embeddings_alone_are_a_set(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=np.ones((3, 4)), labels=np.array([1, 0, 1]))
    got = load_embedding_set(tmp_path / "a.npz")
    assert got.embeddings.dtype == np.float32
    assert got.identities.tolist() == ["0", "1"]
    assert got.names.tolist() == ["0", "1", "2"]
    assert np.isnan(got.detector_scores).all()


def test_a_parquet_of_other_programs_is_read(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    import pyarrow.parquet as parquet

    table = arrow.table({"embedding": [[1.0, 2.0], [3.0, 4.0]], "identity": ["b", "a"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    got = load_embedding_set(tmp_path / "a.parquet")
    assert got.embeddings.tolist() == [[1, 2], [3, 4]]
    assert (got.labels.tolist(), got.identities.tolist()) == ([1, 0], ["a", "b"])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"other": np.ones(3)}, r"`embeddings` must be floats \(N, D\); the file holds other float64 \(3,\)"),
        ({"embeddings": np.ones(3)}, "must be floats"),
        ({"embeddings": np.ones((3, 2)), "labels": np.array([0, 1])}, "2 labels"),
        (
            {"embeddings": np.ones((3, 2)), "labels": np.array([0, 1, 5]), "identities": np.array(["a"])},
            "-1 .. 5|0 .. 5",
        ),
        ({"embeddings": np.ones((3, 2)), "labels": np.array([0, 1, 10**9])}, "labels reach 1000000000"),
        ({"embeddings": np.ones((3, 2)), "names": np.array([1, 2, 3])}, "names must be text"),
        ({"embeddings": np.array([[object()]], dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_embedding_set(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_are_named(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    path = tmp_path / f"a{suffix}"
    save_embedding_set(path, made_set())
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"a{suffix}"):
            load_embedding_set(path)


def test_about_that_is_no_json_is_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=np.ones((1, 2)), about=np.array("{"))
    assert load_embedding_set(tmp_path / "a.npz").about == {}
    np.savez(tmp_path / "a.npz", embeddings=np.ones((1, 2)), about=np.array(json.dumps([1])))
    assert load_embedding_set(tmp_path / "a.npz").about == {}


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(EmbeddingSetError, match=r"kept in .npz or .parquet; got '.csv'"):
        save_embedding_set(tmp_path / "a.csv", made_set())
