"""Writing a set from images of others: `subset` and `merge` decide which and under which label. Bytes stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tools.record_commands.in_order import counted
from utils.images import ImageError, decode_image
from utils.record_names import RecordNames, names_beside
from utils.record_set import write_record_set
from utils.record_stream import RecordStream
from utils.recordio import RecordError, RecordReader


class JoinedImages:
    """Images of several sets in the order of their new labels.

    Within a new label they are sorted by set, then by key, so that sets which hold identity after identity are read
    from their first byte to their last.

    Attributes:
        readers: the sets.
        sets: which set each image is in, int (N,).
        keys: its key there, int64 (N,).
        old_labels: its label there, int (N,).
        labels: its new label, int (N,), rising.
        num_unnamed: images that no .lst names, so that the new one calls them by where they came from; after `write`.
    """

    def __init__(
        self, readers: Sequence[RecordReader], sets: np.ndarray, keys: np.ndarray, old: np.ndarray, new: np.ndarray
    ) -> None:
        order = np.lexsort((keys, sets, new))
        self.readers = readers
        self.num_unnamed = 0
        self.sets, self.keys, self.old_labels, self.labels = sets[order], keys[order], old[order], new[order]

    def write(self, output: Path, num_classes: int, image_size: tuple[int, int], command: str) -> None:
        """Writes them as a record set in insightface's layout.

        Raises:
            RecordError: damage, or an image with another label than its set's identity records say.
        """
        counts = np.bincount(self.labels, minlength=num_classes)
        with ExitStack() as stack:
            streams = [stack.enter_context(RecordStream(reader)) for reader in self.readers]
            names = [names_beside(reader.path) for reader in self.readers]
            for opened in names:
                if opened is not None:
                    stack.enter_context(opened)
            images = counted(self._images(streams, names), len(self.keys), command)
            write_record_set(output, counts.tolist(), images, image_size)

    def unnamed_note(self, scheme: str, where: str) -> str:
        """A line on the names that were made up, with a line break before it; empty where there are none."""
        if not self.num_unnamed:
            return ""
        return (
            f"\nnote: {self.num_unnamed} images have no name in a .lst; the new one calls them {scheme}, their label "
            f"and key in {where}"
        )

    def _images(
        self, streams: Sequence[RecordStream], names: Sequence[RecordNames | None]
    ) -> Iterator[tuple[Any, ...]]:
        breaks = np.flatnonzero(np.diff(self.sets)) + 1
        for begin, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(self.sets)], strict=True):
            if begin == stop:
                continue
            number = int(self.sets[begin])
            known = names[number]
            reader = self.readers[number]
            prefix = f"{_in_one_line(reader.path.resolve().parent.name)}/" if len(self.readers) > 1 else ""
            old = self.old_labels[begin:stop].tolist()
            for (key, header, payload), label in zip(streams[number].samples(self.keys[begin:stop]), old, strict=True):
                if header.first_label != label:
                    raise RecordError(
                        reader.path, key, reader.offset(key),
                        f"its label is {header.first_label:g}, the identity records say {label}; `verify` tells more",
                    )  # fmt: skip
                name = known.name(key) if known else None
                if not name:
                    name = f"{prefix}{label}/{key}"
                    self.num_unnamed += 1
                more = header.label[1:] if isinstance(header.label, np.ndarray) else ()
                yield bytes(payload), name, more


def _in_one_line(name: str) -> str:
    """A folder's name as the .lst can hold it."""
    return "".join("_" if letter in "\t\n\r" else letter for letter in name)


def image_size_of(reader: RecordReader, key: int) -> tuple[int, int]:
    """(height, width) as the property file says, else of the image with this key.

    Raises:
        RecordError: the image is damaged.
    """
    if reader.image_size is not None:
        return reader.image_size
    try:
        image = decode_image(reader.sample(key)[1])
    except ImageError as error:
        raise RecordError(reader.path, key, reader.offset(key), str(error)) from None
    return int(image.shape[0]), int(image.shape[1])
