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
from sources.mat_file import read_mat
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mat(X=np.zeros((2, 2))), "y is not in it"),
        (mat(X="text", y=[[1]]), "X is no array of real numbers"),
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
