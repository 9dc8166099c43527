"""Saved embeddings: what is written is read, foreign files are read where they can be, damage is named."""

from __future__ import annotations

import json
import zipfile

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


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return [(member.filename, archive.read(member)) for member in archive.infolist()]


def test_files_that_announce_more_than_they_hold(tmp_path):
    """Headers that ask for gigabytes, a bomb, text of giant width: refused before memory is taken."""
    path = tmp_path / "a.npz"
    np.savez(path, embeddings=np.ones((3, 2), np.float32))
    (name, content), *_ = members_of(path)
    huge = content.replace(b"(3, 2), ", b"(99999999, 99), ", 1)
    wide = content.replace(b"'<f4'", b"'<U99999999'", 1)
    for changed, words in ((huge, r"an array of float32 \(99999999, 99\) in"), (wide, "an array of <U99999999")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, changed)
        with pytest.raises(DataError, match=words):
            load_embedding_set(path)
    for odd in (b"(((((((", b"9**9**9", b"[[[[[[["):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content.replace(b"'<f4', ", odd, 1))
        with pytest.raises(DataError, match=r"a\.npz"):
            load_embedding_set(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(200 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="more than 100 times as much is refused"):
        load_embedding_set(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, content)
    with pytest.raises(DataError, match="two arrays of one name"):
        load_embedding_set(path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": np.array([[0], [1], [2]])}, r"labels of \(3, 1\)"),
        (
            {"labels": np.array([0, 1, 2**64 - 1], np.uint64), "identities": np.array(["a", "b"])},
            "18446744073709551615",
        ),
        ({"names": np.array("abc")}, "names of shape"),
        ({"identities": np.array([1, 2])}, "identities must be a list of texts"),
        ({"detector_scores": np.array(["a", "b", "c"])}, "detector scores floats"),
        ({"labels": np.array([0, 1, -5])}, "labels lie in -5 .. 1"),
    ],
)
def test_arrays_of_other_shapes_and_kinds(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", embeddings=np.ones((3, 2)), **arrays)
    with pytest.raises(DataError, match=words):
        load_embedding_set(tmp_path / "a.npz")


def test_columns_first_and_compressed_arrays_are_read(tmp_path):
    values = np.asfortranarray(np.arange(6, dtype=">f8").reshape(3, 2))
    np.savez_compressed(tmp_path / "a.npz", embeddings=values, other=np.array(["x"]))
    np.testing.assert_array_equal(load_embedding_set(tmp_path / "a.npz").embeddings, values.astype(np.float32))


def test_a_large_set_is_written_without_reading_it_whole(tmp_path):
    """Memory maps go through in blocks; several row groups come back in order."""
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    count = 40_000
    mapped = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(count, 4))
    mapped[:] = np.arange(4 * count).reshape(count, 4)
    names = np.arange(count).astype(np.str_)
    whole = EmbeddingSet(mapped, names, np.arange(count) % 3 - 1, np.array(["a", "b"]), np.ones(count, np.float32))
    for suffix in FORMATS:
        save_embedding_set(tmp_path / f"a{suffix}", whole)
        got = load_embedding_set(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(got.embeddings, mapped)
        np.testing.assert_array_equal(got.labels, whole.labels)
        assert got.names[-1] == "39999"


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([[1.0, 2.0], [3.0]], "equally long lists"),
        ([[1.0, 2.0], None], "in every row"),
        ([[1.0, None], [1.0, 2.0]], "equally long lists"),
        ([1.0, 2.0], "must hold lists of floats"),
        ([["a"], ["b"]], "must hold lists of floats"),
    ],
)
def test_parquet_columns_that_are_no_embeddings(tmp_path, column, words):
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"embedding": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=words):
        load_embedding_set(tmp_path / "a.parquet")


def test_a_parquet_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    import pyarrow.parquet as parquet

    zeros = arrow.FixedSizeListArray.from_arrays(arrow.array(np.zeros(30_000_000, np.float32)), 30_000)
    parquet.write_table(arrow.table({"embedding": zeros}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 19
    with pytest.raises(DataError, match="unpack to more than 100 times"):
        load_embedding_set(tmp_path / "a.parquet")
