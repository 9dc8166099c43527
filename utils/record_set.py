"""Writing a whole insightface record set: set header, images, identity records, .lst and property. Reads no images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.files import sync_folder
from utils.record_framing import RecordError, RecordHeader, pack_record
from utils.record_writer import RecordWriter


def write_record_set(
    folder: Path, counts: Sequence[int], images: Iterable[tuple[bytes, str]], image_size: tuple[int, int]
) -> None:
    """Writes train.rec, train.idx, train.lst and property into `folder`, all or nothing.

    Layout: record 0 holds the labels (n + 1, n + 1 + identities); records 1 .. n are the images, identity after
    identity; record n + 1 + i holds the span of keys of identity i, end exclusive. Over an older set, the new one
    takes over file by file, the property file last: no moment shows a new set with an old description.

    Args:
        folder: exists; an older set in it is replaced.
        counts: images of each identity, in label order.
        images: (encoded bytes, name for the .lst) of every image, in label order; consumed as a stream.
        image_size: (height, width) of all images.

    Raises:
        RecordError: another number of images than `counts` promises; nothing is left behind.
    """
    num_images, num_classes = int(sum(counts)), len(counts)
    rec, lst, description = folder / "train.rec", folder / "train.lst", folder / "property"
    partial_lst = folder / "train.lst.partial"
    stream = iter(images)
    first_identity = num_images + 1
    try:
        with RecordWriter(rec, folder / "train.idx") as writer, partial_lst.open("w", encoding="utf-8") as names:
            writer.write(0, _span_record(0, first_identity, first_identity + num_classes))
            key = 1
            for label, count in enumerate(counts):
                for _ in range(count):
                    data, name = _next_image(stream, rec, key, num_images)
                    writer.write(key, pack_record(RecordHeader(0, float(label), key), data))
                    names.write(f"{key}\t{label}\t{name}\n")
                    key += 1
            if next(stream, None) is not None:
                raise RecordError(rec, None, None, f"more images came than the {num_images} that were counted")
            start = 1
            for label, count in enumerate(counts):
                writer.write(first_identity + label, _span_record(first_identity + label, start, start + count))
                start += count
            names.flush()
            os.fsync(names.fileno())
            description.unlink(missing_ok=True)
        os.replace(partial_lst, lst)
    except BaseException:
        partial_lst.unlink(missing_ok=True)
        raise
    partial_description = folder / "property.partial"
    partial_description.write_text(f"{num_classes},{image_size[0]},{image_size[1]}", encoding="ascii")
    os.replace(partial_description, description)
    sync_folder(folder)


def _span_record(key: int, start: int, end: int) -> bytes:
    return pack_record(RecordHeader(2, np.array([start, end], dtype=np.float32), key), b"")


def _next_image(stream: Iterable[tuple[bytes, str]], rec: Path, key: int, num_images: int) -> tuple[bytes, str]:
    for image in stream:
        return image
    raise RecordError(rec, key, None, f"only {key - 1} of the {num_images} counted images came")
