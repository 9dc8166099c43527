"""Targets that read saved embeddings, lists of images and files of landmarks. No loop here."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from eval.embedding_set import EmbeddingSet, load_embedding_set, save_embedding_set
from eval.image_set import ImageSetError, open_image_set
from tests.fuzz.damage import damaged
from tests.fuzz.target import Target, put
from tests.records import picture
from tools.alignment.landmarks import read_landmarks, require_order
from tools.alignment.template import LandmarkError
from utils.errors import DataError
from utils.images import ImageError, encode_jpeg


def _made_set(count: int) -> EmbeddingSet:
    random = np.random.default_rng(0)
    return EmbeddingSet(
        random.standard_normal((count, 8)).astype(np.float32),
        np.array([f"Ann/{index} ä.jpg" for index in range(count)], dtype=np.str_),
        np.arange(count, dtype=np.int64) % 3 - 1,
        np.array(["Ann", "Bob"]),
        np.where(np.arange(count) % 2, np.nan, 0.5).astype(np.float32),
        {"flip": True},
    )


def _saved(folder: Path, suffix: str) -> list[bytes]:
    seeds = []
    for count in (6, 1):
        save_embedding_set(folder / f"seed{suffix}", _made_set(count))
        seeds.append((folder / f"seed{suffix}").read_bytes())
    return seeds


def _npz_seeds(folder: Path) -> list[bytes]:
    stream = io.BytesIO()
    np.savez_compressed(stream, embeddings=np.ones((3, 4)), labels=np.array([1, 0, 1], np.uint8))
    return [*_saved(folder, ".npz"), stream.getvalue()]


_SHAPES = (b"(1073741824, 8), ", b"(0, 8), ", b"(6,), ", b"(), ", b"(-6, -8), ", b"(6, 8, 1), ", b"(1e9, 8), ")
_TYPES = (
    b"'|O'",
    b"'<f2'",
    b"'>f8'",
    b"'<c8'",
    b"'<U1073741824'",
    b"'|V9'",
    b"'<M8[s]'",
    b"'|S4'",
    b"'<u8'",
    b"'<f16'",
)


def _rezip(data: bytes, random: Random) -> bytes:
    """The archive again, whole, with damage inside of its members, other sizes, repeated names or a bomb."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error, OSError):
        return data
    if not members:
        return data
    place = random.randrange(len(members))
    name, content = members[place]
    way = random.randrange(7)
    if way == 0:
        content = damaged(content, random, [content], [], is_text=False)
    elif way == 1:
        start, stop = content.find(b"(", 10), content.find(b"}", 10)
        content = content[:start] + random.choice(_SHAPES) + content[stop:]
    elif way == 2:
        start, stop = content.find(b"'descr': ") + 9, content.find(b", 'fortran")
        content = content[:start] + random.choice(_TYPES) + content[stop:]
    elif way == 3:
        content = content.replace(b"False", b"True ", 1)
    elif way == 4:
        members.append((random.choice(members)[0], content))
    elif way == 5 and random.random() < 0.02:
        content += bytes(100 << 20)
    else:
        name = random.choice(("embeddings.npy", "labels.npy", "names.npy", "about.npy", "../x.npy", ""))
    members[place] = (name, content)
    stream = io.BytesIO()
    with zipfile.ZipFile(
        stream, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    ) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), content, archive.compression)
    return stream.getvalue()


def _read_set(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        got = load_embedding_set(put(folder, f"set{suffix}", data))
        assert got.embeddings.dtype == np.float32
        assert got.names.shape == got.labels.shape == (len(got),)

    return read


def _parquet_sizes(data: bytes, random: Random) -> bytes:
    """Another number in the footer or in a page's header, which are varints."""
    footer = struct.unpack("<I", data[-8:-4])[0] if len(data) > 12 else 0
    first = len(data) - 8 - footer if 0 < footer < len(data) and random.random() < 0.7 else 4
    if not 0 < first < len(data) - 8:
        return data
    place = random.randrange(first, len(data) - 8)
    number = random.choice((b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x08", b"\0", b"\x7f", b"\xfe\xff\x03"))
    kept = random.choice((1, len(number)))
    return data[:place] + number + data[place + kept :]


def _list_seeds(suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        for name in ("a.jpg", "b.jpg"):
            put(folder, name, encode_jpeg(picture(3, 8, 8)))
        if suffix == ".lst":
            return [b"7\t3.0\ta.jpg\n8\t1\tb.jpg\n", b"1\t0\ta.jpg\n"]
        return [b"a.jpg\nb.jpg\tBob\na.jpg\tAnn\n", b"a.jpg\n"]

    return seeds


def _read_list(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        images = open_image_set(put(folder, f"list{suffix}", data), image_format=None)
        assert len(images.names) == len(images.labels) == len(images.sources)
        for path, index in zip(images.sources[:3], range(3), strict=False):
            if path.resolve().is_relative_to(folder.resolve()):  # where a list leads is its writer's business
                images.images[index]

    return read


_HEADER = b"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5,score\n"
_ROW = b"38,51,73,51,56,71,41,92,70,92"


def _read_landmarks(data: bytes, folder: Path) -> None:
    landmarks = read_landmarks(put(folder, "landmarks", data))
    for name in landmarks.names():
        face = landmarks.get(name)
        assert face is not None
        assert np.isfinite(face.points).all()
    require_order(landmarks, landmarks.names())


FACE_TARGETS = [
    Target("npz", _npz_seeds, _read_set(".npz"), (DataError,), (b"PK\x01\x02", b"PK\x05\x06", b"\x93NUMPY"), (_rezip,),
           memory_constant=192 << 20),
    Target("parquet", lambda folder: _saved(folder, ".parquet"), _read_set(".parquet"), (DataError,), (b"PAR1",),
           (_parquet_sizes,), memory_constant=256 << 20),
    Target("image_txt", _list_seeds(".txt"), _read_list(".txt"), (ImageSetError, ImageError),
           (b"/dev/zero\n", b"/dev/stdin\n", b"../../x\n", b"a.jpg\tAnn\tx\n"), is_text=True, memory_factor=512),
    Target("image_lst", _list_seeds(".lst"), _read_list(".lst"), (ImageSetError, ImageError),
           (b"1\tnan\ta.jpg\n", b"1\t1e300\ta.jpg\n", b"\t\t\t"), is_text=True, memory_factor=512),
    Target("landmarks", lambda _: [_HEADER + b"a," + _ROW + b",.5\n" + b'"b, c",' + _ROW + b",\n",
                                   b"2\na b " + _ROW.replace(b",", b" ") + b"\nc " + _ROW.replace(b",", b" ") + b"\n"],
           _read_landmarks, (LandmarkError,), (b'"', b"1e999", b"-", b"x1,", b"score,"), is_text=True,
           memory_factor=512),
]  # fmt: skip
