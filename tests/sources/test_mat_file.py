"""MATLAB 5 files as scipy writes them, and files whose sizes lie."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from sources.base import SourceError
from sources.mat_file import read_mat, read_mat_values
from tests.fuzz.damage import zlib_bomb


def mat(**arrays: object) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays)
    return stream.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_every_class_read_as_scipy_reads_them(packed: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
    arrays = {f"a_{kind}": (100 * rng.random((3, 1, 4))).astype(kind) for kind in kinds}
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {**arrays, "text": "hello", "small": np.array([[7]], "u1")}, do_compression=packed)
    theirs = scipy.io.loadmat(path)
    ours = read_mat(path, (*arrays, "small"))
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(array, theirs[name])


@pytest.mark.parametrize("packed", [False, True])
def test_text_cells_and_structures_read_as_they_were_written(packed: bool, tmp_path: Path) -> None:
    cell = np.empty((2, 2), object)
    cell[0, 0], cell[1, 0], cell[0, 1], cell[1, 1] = "first", "Ren\u00e9e", np.array([[1.5, 2.5]]), {"deep": "text"}
    several = np.array([(1.0, "one"), (2.0, "two")], [("number", object), ("word", object)])
    path = tmp_path / "x.mat"
    values = {
        "cell": cell,
        "one": {"name": "Ann", "age": 7.0},
        "several": several,
        "empty": "",
        "none": np.empty((0, 0)),
    }
    scipy.io.savemat(path, values, do_compression=packed)
    found = read_mat_values(path, tuple(values))
    assert isinstance(found["cell"], np.ndarray)
    assert found["cell"].shape == (2, 2)
    assert [found["cell"][0, 0], found["cell"][1, 0], found["cell"][1, 1]] == ["first", "Ren\u00e9e", {"deep": "text"}]
    np.testing.assert_array_equal(found["cell"][0, 1], [[1.5, 2.5]])
    assert found["one"] == {"name": "Ann", "age": np.array([[7.0]])}
    assert isinstance(found["several"], np.ndarray)
    assert [(row["number"].item(), row["word"]) for row in found["several"].reshape(-1)] == [(1.0, "one"), (2.0, "two")]
    assert found["empty"] == ""
    assert np.shape(found["none"]) == (0, 0)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def variable(flags: int, dimensions: bytes, name: bytes, *rest: bytes) -> bytes:
    head = element(6, struct.pack("<II", flags, 0)) + element(5, dimensions) + element(1, name)
    return element(14, head + b"".join(rest))


def test_a_variable_that_nobody_asked_for_may_be_anything(tmp_path: Path) -> None:
    """MATLAB's objects have no shape where other variables have one."""
    wanted = variable(9, struct.pack("<ii", 1, 1), b"X", element(2, b"\7"))
    for other in (variable(17, b"label", b"MCOS"), variable(6, struct.pack("<i", 1 << 30) * 200_000, b"other")):
        (tmp_path / "x.mat").write_bytes(bytes(126) + b"IM" + other + wanted)
        assert read_mat(tmp_path / "x.mat", ("X",))["X"].tolist() == [[7]]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (variable(6, struct.pack("<i", 1 << 30) * 200_000, b"X"), "X has 200000 dimensions"),
        (variable(2, struct.pack("<ii", 1, 0), b"X", element(5, struct.pack("<i", 2)), element(1, b"ab" * (1 << 19))),
         "names of fields are 2 bytes long each, and 1048576 together"),
        (variable(2, struct.pack("<ii", 1, 1), b"X", element(5, struct.pack("<i", 4096)), element(1, bytes(4096))),
         "names of fields are 4096 bytes long each"),
    ],
)  # fmt: skip
def test_heads_that_cost_more_than_they_hold_are_refused(damaged: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_bytes(bytes(126) + b"IM" + damaged)
    with pytest.raises(SourceError, match=message):
        read_mat_values(tmp_path / "x.mat", ("X",))


def test_values_inside_values_are_limited(tmp_path: Path) -> None:
    nested: object = "bottom"
    for _ in range(20):
        nested = {"deeper": nested}
    scipy.io.savemat(tmp_path / "deep.mat", {"X": nested})
    with pytest.raises(SourceError, match="X has a part of type 14 inside, 16 deep"):
        read_mat_values(tmp_path / "deep.mat", ("X",))
    head = struct.pack("<IIII", 6, 8, 2, 0) + struct.pack("<IIii", 5, 8, 1 << 15, 1 << 15) + struct.pack("<II", 1, 1)
    head += b"X" + bytes(7) + struct.pack("<HHi", 5, 4, 32) + struct.pack("<II", 1, 0)  # structures without a field
    (tmp_path / "many.mat").write_bytes(bytes(126) + b"IM" + struct.pack("<II", 14, len(head)) + head)
    with pytest.raises(SourceError, match="X has more than 262144 values inside"):
        read_mat_values(tmp_path / "many.mat", ("X",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mat(X=np.zeros((2, 2))), "y is not in it"),
        (mat(X="text", y=[[1]]), "X is no array of real numbers"),
        (mat(X={"a": 1}, y=[[1]]), "X is no array of real numbers"),
        (mat(X=np.zeros(2, complex), y=[[1]]), "X is no array of real numbers"),
        (mat(X=np.zeros((4, 4)), y=[[1]])[:200], "are left"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "does not begin as MATLAB 5"),
        (bytes(126) + b"IM" + struct.pack("<II", 15, 4) + b"abcd", "while decompressing"),
    ],
)
def test_other_files_are_explained(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(SourceError, match=f"x.mat: no readable .mat file with X and y.*{message}"):
        read_mat(tmp_path / "x.mat", ("X", "y"))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    inside = zlib.compressobj()
    packed = inside.compress(struct.pack("<II", 14, 1 << 30)) + inside.flush()
    (tmp_path / "x.mat").write_bytes(bytes(126) + b"IM" + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(SourceError, match="compressed bytes announce 1073741824; more than 67108864 are refused"):
        read_mat(tmp_path / "x.mat", ("X",))
    assert len(zlib_bomb(1 << 22)) < 1 << 14
