"""Targets that read training data: records, idx, CIFAR, SVHN, images. No loop here."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from pathlib import Path
from random import Random

import cv2
import numpy as np
import scipy.io

from sources.base import SourceError
from sources.cifar import _read_binary, _read_pickle
from sources.idx import read_idx
from sources.records import RecordSource
from sources.svhn import open_svhn
from tests.fuzz.damage import damaged, pickle_damage
from tests.fuzz.mat_damage import mat_damage
from tests.fuzz.target import Target, put
from tests.records import image_record, picture, write_set
from utils.images import ImageError, ImageFormat, decode_image
from utils.record_framing import MAGIC_BYTES, RecordError
from utils.record_index import read_index
from utils.record_layout import read_property
from utils.record_set import write_record_set
from utils.recordio import RecordReader

_TINY = ImageFormat(8, 8, 3)
_PNG = cv2.imencode(".png", picture(0, 8, 8))[1].tobytes()


def _record_seeds(folder: Path) -> list[bytes]:
    """An insightface set and a plain one, whose .idx files stay as they are."""
    seeds: list[bytes] = []
    for name, counts in (("faces", [2, 1]), ("plain", [])):
        (folder / name).mkdir(exist_ok=True)
        if counts:
            write_record_set(folder / name, counts, iter([(_PNG, "a.png")] * sum(counts)), (8, 8))
        else:
            split = b"abcd" + MAGIC_BYTES + MAGIC_BYTES + b"efg"
            vector = image_record(np.array([1.0, 0.5], dtype=np.float32), 2, split)
            write_set(folder / name, {0: image_record(0.0, 0, _PNG), 2: vector, 7: image_record(3.0, 7, b"")})
        seeds.append((folder / name / "train.rec").read_bytes())
    return seeds


def _read_records(data: bytes, folder: Path) -> None:
    home = folder / ("faces" if len(data) % 2 else "plain")
    rec = put(home, "train.rec", data)
    if zlib.crc32(data) % 3 == 0:  # without an index: one walk over the file
        rec = put(folder, "walked.rec", data)
    _use_reader(rec)


def _use_reader(rec: Path) -> None:
    with RecordReader(rec) as reader:
        for key in reader.keys[:20].tolist():
            try:
                reader.sample(key)
            except RecordError:
                continue
        reader.labels(reader.image_keys)
        reader.class_counts()
    if rec.parent.name == "faces":
        source = RecordSource(rec)
        for index in range(min(len(source), 4)):
            source.read(index)


def _index_seeds(folder: Path) -> list[bytes]:
    write_set(folder, {key: image_record(0.0, key, _PNG) for key in (1, 2, 4)})
    sound = (folder / "train.idx").read_bytes()
    return [sound, sound.replace(b"\n", b"\r\n"), sound.rstrip(b"\n"), b"".join(reversed(sound.splitlines(True)))]


def _read_index(data: bytes, folder: Path) -> None:
    index = put(folder, "train.idx", data)
    read_index(index)
    with RecordReader(folder / "train.rec", index) as reader:
        for key in reader.keys[:5].tolist():
            reader.sample(key)


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def _idx_seeds(_: Path) -> list[bytes]:
    return [_idx(np.arange(48).reshape(3, 4, 4)), _idx(np.zeros((0, 4, 4)))]


def _regzip(data: bytes, random: Random) -> bytes:
    """Damage under the compression; now and then a bomb whose header fits."""
    try:
        inside = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data
    if random.random() < 0.002:
        inside = struct.pack(">HBB3I", 0, 8, 3, 1 << 10, 1 << 10, random.choice((1, 60))) + bytes(60 << 20)
        return gzip.compress(inside, 1)
    return gzip.compress(damaged(inside, random, [inside], [], is_text=False), 1)


def _cifar_seeds(_: Path) -> list[bytes]:
    pixels = np.zeros((2, 3072), dtype=np.uint8)
    batches = ({b"data": pixels, b"labels": [1, 9]}, {b"labels": [0, 2], b"data": pixels, b"filenames": [b"a", b"b"]})
    return [pickle.dumps(batch, protocol) for batch in batches for protocol in (2, 4, 5)]


def _mat_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for packed in (False, True):
        stream = io.BytesIO()
        arrays = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1.0], [10.0]]), "other": "text"}
        scipy.io.savemat(stream, arrays, do_compression=packed)
        seeds.append(stream.getvalue())
    return seeds


def _read_mat(data: bytes, folder: Path) -> None:
    put(folder, "train_32x32.mat", data)
    open_svhn(str(folder))


def _image_seeds(_: Path) -> list[bytes]:
    small, seeds = picture(1, 8, 8), []
    for suffix, flags in ((".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".png", []), (".bmp", []),
                          (".webp", []), (".webp", [cv2.IMWRITE_WEBP_QUALITY, 50])):  # fmt: skip
        seeds.append(cv2.imencode(suffix, small, flags)[1].tobytes())
    grey = cv2.imencode(".jpg", small[:, :, 0])[1].tobytes()
    return [*seeds, grey]


def _bomb_header(data: bytes, random: Random) -> bytes:
    """Another size in the header of an image."""
    size = random.choice((0, 1, 7, 9, 112, 1500, 30000, 60000, 65535))
    if data[:2] == b"\xff\xd8":
        place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        return data[: place + 5] + struct.pack(">HH", size, size) + data[place + 9 :]
    if data[:2] == b"BM":
        return data[:18] + struct.pack("<ii", size, random.choice((-1, 1)) * size) + data[26:]
    if data[:4] == b"\x89PNG":
        header = struct.pack(">II", size, size) + data[24:29]
        return data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]
    return data[:26] + struct.pack("<HH", size & 0x3FFF, size & 0x3FFF) + data[30:]


def _decode(data: bytes, _: Path) -> None:
    try:
        decode_image(data, _TINY)
    finally:
        decode_image(memoryview(data))


_BIG = 420 << 20  # an image of 100 million pixels, which a caller who promises no size may get
DATA_TARGETS = [
    Target("records", _record_seeds, _read_records, (RecordError, ImageError, SourceError),
           (MAGIC_BYTES, struct.pack("<I", 1 << 29), struct.pack("<I", 3 << 29 | 4), struct.pack("<f", np.nan),
            struct.pack("<f", 16777216.0), struct.pack("<f", 3e38)), memory_constant=300 << 20),
    Target("index", _index_seeds, _read_index, (RecordError,), is_text=True),
    Target("property", lambda _: [b"85742,112,112", b"3, 8, 8\n"],
           lambda data, folder: read_property(put(folder, "property", data)), (RecordError,), is_text=True),
    Target("idx", _idx_seeds, lambda data, folder: read_idx(put(folder, "images", data), 3), (SourceError,)),
    Target("idx_gz", lambda folder: [gzip.compress(seed) for seed in _idx_seeds(folder)],
           lambda data, folder: read_idx(put(folder, "images.gz", data), 3), (SourceError,),
           mutators=(_regzip,), memory_constant=192 << 20),
    Target("cifar_bin", lambda _: [bytes([3]) + bytes(3072), bytes(2 * 3073)],
           lambda data, folder: _read_binary(put(folder, "test_batch.bin", data), 1), (SourceError,)),
    Target("cifar_pickle", _cifar_seeds, lambda data, folder: _read_pickle(put(folder, "test_batch", data), b"labels"),
           (SourceError,), mutators=(pickle_damage,)),
    Target("svhn", _mat_seeds, _read_mat, (SourceError,), mutators=(mat_damage,), memory_constant=192 << 20),
    Target("image", _image_seeds, _decode, (ImageError,), mutators=(_bomb_header,), memory_constant=_BIG * 3),
]  # fmt: skip
