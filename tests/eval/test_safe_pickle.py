"""Verification pickles of every age load; hostile and damaged ones are refused by name, before they can do anything."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from eval.bin_files import read_bin, write_bin
from eval.safe_pickle import PairError

BIN = Path("some/set.bin")
IMAGES = [b"\xff\xd8one", b"\xff\xd8two\x00\n", b"", b"\xff\xd8\xe4four"]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def as_arrays(images):
    return [np.frombuffer(image, dtype=np.uint8) for image in images]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        as_arrays(IMAGES),
        [array.copy() for array in as_arrays(IMAGES)],  # writable ones pickle as bytearrays in protocol 5
        [array.reshape(-1, 1) for array in as_arrays(IMAGES)],
        [array.view(np.int8) for array in as_arrays(IMAGES)],
    ],
    ids=["bytes", "arrays", "writable arrays", "column arrays", "signed arrays"],
)
@pytest.mark.parametrize(
    "flags",
    [[True, False], (True, False), np.array([True, False]), [np.True_, np.False_], [1, 0], np.array([1, 0])],
    ids=["list", "tuple", "array", "numpy bools", "ints", "int array"],
)
def test_layouts_of_all_ages(protocol, images, flags):
    container = tuple if isinstance(flags, list) else list
    bins, is_same = read_bin(BIN, pickle.dumps(container([images, flags]), protocol=protocol))
    assert [bytes(image) for image in bins] == IMAGES
    assert is_same.dtype == bool
    assert is_same.tolist() == [True, False]


def python2_string(data: bytes) -> bytes:
    return b"U" + bytes([len(data)]) + data


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_python_2_pickles(module):
    string = b"\x80\x02(]q\x00(" + b"".join(python2_string(image) for image in IMAGES) + b"e]q\x01(\x88\x89et."
    array = (
        b"c" + module + b"\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85" + python2_string(b"b") + b"\x87R"
        b"(K\x01K\x04\x85cnumpy\ndtype\n"
        + python2_string(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + python2_string(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + python2_string(b"\xff\xd8\xe4\x00")
        + b"tb"
    )
    arrays = b"\x80\x02(](" + array + array + b"e](\x88et."
    assert read_bin(BIN, string)[0] == IMAGES
    assert [bytes(image) for image in read_bin(BIN, arrays)[0]] == [b"\xff\xd8\xe4\x00"] * 2


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_hostile_global_is_named_and_never_called(protocol, tmp_path):
    target = tmp_path / "made by the pickle"
    content = pickle.dumps(([Call(os.mkdir, str(target))], [True]), protocol=protocol)
    # the text opcodes of the oldest protocol are refused even before the name is met
    name = r"asks for '(posix|os|nt)\.mkdir'.*Nothing was run" if protocol > 0 else "uses opcode"
    with pytest.raises(PairError, match=f"some/set.bin: the pickle {name}"):
        read_bin(BIN, content)
    assert not target.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (np.load, "numpy.*load"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (np.frombuffer, "numpy.*frombuffer"),
        (bytearray, "builtins.bytearray"),
    ],
)
def test_neighbours_of_allowed_names_are_refused(function, name):
    with pytest.raises(PairError, match=f"asks for '{name}'"):
        read_bin(BIN, pickle.dumps(([Call(function, "x")] * 2, [True]), protocol=4))


@pytest.mark.parametrize("value", [{"a": 1}, {1, 2}, 1.5])
def test_other_types_are_refused(value):
    with pytest.raises(PairError, match=r"uses opcode \w+ at byte \d+"):
        read_bin(BIN, pickle.dumps(([value, b""], [True]), protocol=4))


def test_object_and_record_arrays_are_refused():
    for array in (np.array([None, 1], dtype=object), np.array(["a"]), np.zeros(2, dtype=[("x", "u1")])):
        with pytest.raises(PairError):
            read_bin(BIN, pickle.dumps(([array, array], [True]), protocol=2))
    with pytest.raises(PairError, match="arrays of dtype 'O8' are refused"):
        read_bin(BIN, pickle.dumps(([np.array([None])] * 2, [True]), protocol=2))


def _reconstructed(shape: bytes, data: bytes = b"C\x01b") -> bytes:
    """_reconstruct, dtype u1, a state with the given shape and bytes."""
    return (
        b"\x80\x03(](cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + shape
        + b"C\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + data + b"tbe](\x88et."
    )


@pytest.mark.parametrize(
    "content",
    [
        _reconstructed(b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85"),  # a shape of 2 ** 44
        b"\x80\x04\x8e" + struct.pack("<Q", 2**46) + b"x.",  # bytes of that length, announced only
        b"\x80\x05\x96" + struct.pack("<Q", 2**46) + b"x.",  # bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 2**46) + b"N.",  # frame
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # memo index 2 ** 31
        b"\x80\x02" + b"(" * 3 + b"t.",  # unfinished
        b"",
        b"not a pickle",
        pickle.dumps((IMAGES, [True, False]))[:-9],
    ],
    ids=["shape", "bytes", "bytearray", "frame", "memo", "marks", "empty", "text", "cut short"],
)
def test_announced_sizes_and_damage_end_in_one_kind_of_error(content):
    with pytest.raises(PairError, match=r"some/set\.bin"):
        read_bin(BIN, content)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_every_cut_and_many_flips_end_in_one_kind_of_error():
    good = pickle.dumps((as_arrays(IMAGES), np.array([True, False])), protocol=2)
    for length in range(len(good)):
        with pytest.raises(PairError):
            read_bin(BIN, good[:length])
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(good)
        damaged[rng.integers(len(good))] = rng.integers(256)
        try:
            bins, is_same = read_bin(BIN, bytes(damaged))
        except PairError:
            continue
        assert len(bins) == 2 * len(is_same)


def test_repeated_work_on_one_string_is_bounded():
    text = b"X" + struct.pack("<I", 1000) + b"x" * 1000
    encode = b"c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x02\x86R"
    again = b"h\x00h\x01h\x02\x86R"
    with pytest.raises(PairError, match="more bytes are made from text than the file holds"):
        read_bin(BIN, b"\x80\x02(](" + encode + again * 999 + b"e]t.")
    # one long image named often is one image in memory
    array = _reconstructed(b"M\xe8\x03\x85", b"B\xe8\x03\x00\x00" + b"x" * 1000)
    start = array.index(b"cnumpy.core")
    stop = array.index(b"e](\x88")
    content = b"\x80\x03(](" + array[start:stop] + b"q\x09" + b"h\x09" * 99 + b"e](" + b"\x88" * 50 + b"et."
    bins, _ = read_bin(BIN, content)
    assert len({np.frombuffer(image, np.uint8).ctypes.data for image in bins}) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2, 3], r"expected a pair \(bins, issame_list\), got a list of 3"),
        ((b"x", [True]), r"expected \(list of images, list of flags\)"),
        (([b"x"] * 3, [True]), "1 flags need 2 images, and at least one pair; got 3"),
        (([], []), "0 flags need 0 images, and at least one pair"),
        (([b"x"] * 2, [2]), "flag 0 is not True or False but a int"),
        (([b"x", 7], [True]), "image 1 is not a byte string or a flat uint8 array but a int"),
        (([b"x", np.zeros((2, 2), np.uint8)], [True]), r"image 1 .* a uint8 array of shape \(2, 2\)"),
        (([b"x", np.zeros(2, np.int64)], [True]), r"image 1 .* a int64 array"),
    ],
)
def test_other_layouts_are_explained(value, message):
    with pytest.raises(PairError, match=message):
        read_bin(BIN, pickle.dumps(value, protocol=4))


def test_write_bin_reads_back_also_with_plain_pickle(tmp_path):
    path = tmp_path / "set.bin"
    write_bin(path, IMAGES, np.array([True, False]))
    assert read_bin(path, path.read_bytes())[0] == IMAGES
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (IMAGES, [True, False])
    with pytest.raises(PairError, match="2 flags need 4 images, and at least one pair; got 3"):
        write_bin(path, IMAGES[:3], [True, False])
    assert read_bin(path, path.read_bytes())[1].tolist() == [True, False]
    assert list(tmp_path.iterdir()) == [path]


def test_write_bin_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "set.bin"
    path.write_bytes(b"old")

    def no_space(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_bin(path, IMAGES, [True, False])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
