"""Record sets with damage of a known kind in known records, and their sound twins. No tests here."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.records import make_record_set, picture
from utils.images import encode_jpeg
from utils.recordio import RecordHeader, RecordReader, RecordWriter, pack_record

SIZE = 16


def _flip(place: int, mask: int) -> Callable[[bytearray, int], None]:
    """Changes bits of the file `place` bytes behind the record's first one."""

    def apply(data: bytearray, offset: int) -> None:
        data[offset + place] ^= mask

    return apply


def _label(value: float) -> Callable[[bytearray, int], None]:
    def apply(data: bytearray, offset: int) -> None:
        struct.pack_into("<f", data, offset + 12, value)

    return apply


# Changes of the file's bytes: 4 magic, 4 flag and length, then flag, label (12 bytes in), id (16), id2, payload (32).
IN_PLACE: dict[str, tuple[Callable[[bytearray, int], None], str]] = {
    "magic_flipped": (_flip(1, 0x10), "no record begins here"),
    "length_flipped": (_flip(7, 0x10), "the part claims"),
    "continuation_flipped": (_flip(7, 0x80), "continuation flag"),
    "flag_flipped": (_flip(9, 0x80), "the header announces"),
    "id_flipped": (_flip(21, 0x01), "calls itself record"),
    "jpeg_flipped": (_flip(33, 0x08), "not a whole image"),
    "label_flipped": (_flip(14, 0x0F), "is not a whole number in 0 .. 2"),
    "label_too_large": (_label(3.0), "label 3 is not a whole number in 0 .. 2"),
    "label_negative": (_label(-1.0), "label -1 is not a whole number in 0 .. 2"),
    "label_broken": (_label(0.5), "label 0.5 is not a whole number in 0 .. 2"),
    "label_nan": (_label(float("nan")), "label nan is not a whole number in 0 .. 2"),
}


def _grey(pixels: np.ndarray) -> bytes:
    return encode_jpeg(pixels.mean(axis=2, keepdims=True).astype(np.uint8))


def _cmyk(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(stream, "JPEG", quality=95)
    return stream.getvalue()


# Other payloads in sound records; an empty reason: taken as it is.
PAYLOADS: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "truncated": (lambda pixels: encode_jpeg(pixels)[:-60], "the JPEG ends early"),
    "truncated_to_start": (lambda pixels: encode_jpeg(pixels)[:40], "40 bytes"),
    "empty": (lambda pixels: b"", "the image is empty"),
    "no_image": (lambda pixels: b"<html>404 Not Found</html>", "not a whole image"),
    "wrong_size": (lambda pixels: encode_jpeg(picture(0, SIZE + 4, SIZE + 4)), "the image is 20x20"),
    "grey": (_grey, ""),
    "cmyk": (_cmyk, ""),
}
SWAPPED = {"index_swapped": "calls itself record"}
REASONS = {
    **{kind: reason for kind, (_, reason) in {**IN_PLACE, **PAYLOADS}.items() if reason}, **SWAPPED,
}  # fmt: skip


def make_damaged_set(folder: Path, kind: str, bad: Sequence[int], counts: Sequence[int] = (8, 8, 8)) -> Path:
    """Writes make_record_set's set with the images `bad` (numbers from 0) damaged; returns its folder."""
    make_record_set(folder, list(counts), SIZE, SIZE)
    rec, idx = folder / "train.rec", folder / "train.idx"
    keys = [index + 1 for index in bad]
    if kind in PAYLOADS:
        _replace_payloads(rec, idx, keys, PAYLOADS[kind][0])
    elif kind in IN_PLACE:
        with RecordReader(rec) as reader:
            offsets = [reader.offset(key) for key in keys]
        data = bytearray(rec.read_bytes())
        for offset in offsets:
            IN_PLACE[kind][0](data, offset)
        rec.write_bytes(data)
    else:
        lines = [line.split("\t") for line in idx.read_text().splitlines()]
        offsets_by_key = {int(key): offset for key, offset in lines}
        moved = dict(zip(keys, [offsets_by_key[key] for key in keys[1:] + keys[:1]], strict=True))
        idx.write_text("".join(f"{key}\t{moved.get(int(key), offset)}\n" for key, offset in lines))
    return folder


def _replace_payloads(rec: Path, idx: Path, keys: Sequence[int], make: Callable[[np.ndarray], bytes]) -> None:
    with RecordReader(rec) as reader:
        bodies = {int(key): reader.read(int(key)) for key in reader.keys}
        labels = {key: reader.label(key) for key in keys}
    for key in keys:
        payload = make(picture(key - 1, SIZE, SIZE))
        bodies[key] = pack_record(RecordHeader(0, float(labels[key]), key), payload)
    with RecordWriter(rec, idx) as writer:
        for key, body in bodies.items():
            writer.write(key, body)
