"""Small images and record sets that tests make for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.images import encode_jpeg
from utils.record_set import write_record_set
from utils.recordio import RecordHeader, RecordWriter, pack_record


def picture(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    """A smooth random image, uint8 (H, W, 3): smooth, so that JPEG keeps it."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (2, 2, 3))
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top = corners[0, 0] * (1 - columns) + corners[0, 1] * columns
    bottom = corners[1, 0] * (1 - columns) + corners[1, 1] * columns
    return (top * (1 - rows) + bottom * rows).astype(np.uint8)


def make_record_set(folder: Path, counts: list[int], height: int = 16, width: int = 16) -> Path:
    """Writes a record set with `counts` images per identity; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images = ((encode_jpeg(picture(number, height, width)), f"{number}.jpg") for number in range(sum(counts)))
    write_record_set(folder, counts, images, (height, width))
    return folder


def make_image_folder(folder: Path, counts: list[int], height: int = 16, width: int = 16) -> Path:
    """Writes identity folders `person_00`, ... with JPEGs; returns the folder."""
    number = 0
    for label, count in enumerate(counts):
        (folder / f"person_{label:02d}").mkdir(parents=True)
        for image in range(count):
            path = folder / f"person_{label:02d}" / f"{image:03d}.jpg"
            path.write_bytes(encode_jpeg(picture(number, height, width)))
            number += 1
    return folder


def write_set(folder: Path, records: dict[int, bytes]) -> Path:
    """Writes the given record bodies under their keys; returns the .rec file."""
    with RecordWriter(folder / "train.rec", folder / "train.idx") as writer:
        for key, record in records.items():
            writer.write(key, record)
    return folder / "train.rec"


def image_record(label: float | np.ndarray, key: int, payload: bytes = b"pixels") -> bytes:
    """The body of one image record."""
    return pack_record(RecordHeader(0, label, key), payload)
