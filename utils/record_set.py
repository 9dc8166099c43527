"""Writing a whole insightface record set: set header, images, identity records, .lst and property. Reads no images."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from utils.files import sync_folder
from utils.record_framing import RecordError, RecordHeader, frame, pack_record
from utils.record_writer import RecordWriter, partial_path

SET_FILES = ("train.rec", "train.idx", "train.lst", "property")
# what else may lie beside a set and speaks of its labels: class_map.txt of `subset`, identities.tsv of `merge`
DESCRIPTIONS = ("property", "train.lst", "class_map.txt", "identities.tsv")
SAVE_SECONDS = 10.0  # between two moments from which an interrupted set can be continued


@dataclass(frozen=True)
class WrittenPart:
    """How much of an unfinished set is on the disk for certain.

    Attributes:
        images: the first ones of the set.
        rec_bytes: of the unfinished .rec.
        idx_bytes: of the unfinished .idx.
        lst_bytes: of the unfinished .lst.
    """

    images: int
    rec_bytes: int
    idx_bytes: int
    lst_bytes: int


def write_record_set(
    folder: Path,
    counts: Sequence[int],
    images: Iterable[tuple[Any, ...]],
    image_size: tuple[int, int],
    *,
    after: WrittenPart | None = None,
    saved: Callable[[WrittenPart], None] | None = None,
) -> None:
    """Writes train.rec, train.idx, train.lst and property into `folder`, all or nothing.

    Layout: record 0 holds the labels (n + 1, n + 1 + identities); records 1 .. n are the images, identity after
    identity; record n + 1 + i holds the span of keys of identity i, end exclusive. Over an older set, the new one
    takes over file by file, the property file last: no moment shows a new set with an old description.

    Args:
        folder: exists; an older set in it is replaced.
        counts: images of each identity, in label order.
        images: (encoded bytes, name for the .lst) of every image, in label order; consumed as a stream. A third item,
            float32 (K,), holds labels that stand behind the identity's own in the record, as landmarks do.
        image_size: (height, width) of all images.
        after: of an interrupted set with the same images in front; `images` begins behind them.
        saved: is told every SAVE_SECONDS what is safely written. An error then leaves the unfinished files for a
            later call `after` that.

    Raises:
        RecordError: another number of images than `counts` promises; nothing is left behind.
    """
    num_images, num_classes = int(sum(counts)), len(counts)
    rec = folder / "train.rec"
    partial_lst = partial_path(folder / "train.lst")
    header = _span_record(0, num_images + 1, num_images + 1 + num_classes)
    if after is not None:
        _replace_set_header(partial_path(rec), header)
        os.truncate(partial_lst, after.lst_bytes)
    writer = RecordWriter(rec, folder / "train.idx", after=(after.rec_bytes, after.idx_bytes) if after else None)
    can_continue = after is not None
    try:
        with partial_lst.open("ab" if after else "wb") as names:
            if after is None:
                writer.write(0, header)
            last_saved = time.monotonic()
            for key in _write_images(writer, names, counts, iter(images), after.images if after else 0):
                if saved is not None and time.monotonic() - last_saved >= SAVE_SECONDS:
                    rec_bytes, idx_bytes = writer.sync()
                    _sync(names)
                    saved(WrittenPart(key, rec_bytes, idx_bytes, names.tell()))
                    can_continue, last_saved = True, time.monotonic()
            _write_identities(writer, counts, num_images + 1)
            _sync(names)
        remove_descriptions(folder)
        writer.close()
        os.replace(partial_lst, folder / "train.lst")
    except BaseException:
        if can_continue:
            writer.leave()
        else:
            writer.discard()
            partial_lst.unlink(missing_ok=True)
        raise
    write_property(folder, num_classes, image_size)


def remove_descriptions(folder: Path) -> None:
    """Takes away what speaks of the set in `folder`, which another is about to replace."""
    for name in DESCRIPTIONS:
        (folder / name).unlink(missing_ok=True)


def write_property(folder: Path, num_classes: int, image_size: tuple[int, int]) -> None:
    """Writes the property file of a set, whole or not at all."""
    partial_description = partial_path(folder / "property")
    partial_description.write_text(f"{num_classes},{image_size[0]},{image_size[1]}", encoding="ascii")
    os.replace(partial_description, folder / "property")
    sync_folder(folder)


def _write_images(
    writer: RecordWriter, names: BinaryIO, counts: Sequence[int], stream: Iterator[tuple[Any, ...]], done: int
) -> Iterator[int]:
    """Writes one image after the other and yields its key."""
    ends = np.cumsum(np.asarray(counts, dtype=np.int64))
    num_images = int(ends[-1]) if len(ends) else 0
    label = int(np.searchsorted(ends, done, side="right"))
    for key in range(done + 1, num_images + 1):
        while key > ends[label]:
            label += 1
        image = next(stream, None)
        if image is None:
            raise RecordError(writer.path, key, None, f"only {key - 1} of the {num_images} counted images came")
        data, name, *more = image
        vector = np.array([label, *more[0]], dtype=np.float32) if more and len(more[0]) else float(label)
        writer.write(key, pack_record(RecordHeader(0, vector, key), data))
        names.write(f"{key}\t{label}\t{name}\n".encode("utf-8", "surrogateescape"))
        yield key
    if next(stream, None) is not None:
        raise RecordError(writer.path, None, None, f"more images came than the {num_images} that were counted")


def _write_identities(writer: RecordWriter, counts: Sequence[int], first_identity: int) -> None:
    start = 1
    for label, count in enumerate(counts):
        writer.write(first_identity + label, _span_record(first_identity + label, start, start + int(count)))
        start += int(count)


def _replace_set_header(partial_rec: Path, header: bytes) -> None:
    """Of a set that is continued: the images behind those that are written may have become more or fewer."""
    with partial_rec.open("r+b") as stream:
        stream.write(b"".join(frame(header)))


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _span_record(key: int, start: int, end: int) -> bytes:
    return pack_record(RecordHeader(2, np.array([start, end], dtype=np.float32), key), b"")
