"""How batches travel from reader processes to the one that trains, and what arrives where reading fails. No sources."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from utils.bad_records import BadImage
from utils.errors import DataError
from utils.reader_process import explain, prepare_reader, start_readers
from utils.shared_slots import SharedSlots

_PREFETCHED = 2  # batches that each worker is ahead


@dataclass(frozen=True)
class Batch:
    """This rank's part of one global batch.

    Attributes:
        images: uint8 (B, H, W, C), RGB order.
        labels: int64 (B,).
        batch_sizes: B of every rank, in rank order.
        failure: why images and labels are zeros instead of data; the ranks must agree to stop.
        bad: images that could not be read while this batch was, all of them replaced by others.
    """

    images: Tensor
    labels: Tensor
    batch_sizes: tuple[int, ...]
    failure: DataError | None = None
    bad: tuple[BadImage, ...] = ()

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the DataLoader calls this where asked to pin."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True)
class Failure:
    """A data error on its way from a worker: torch would rebuild it from its text alone and lose what it names."""

    error: DataError


@dataclass(frozen=True)
class InSlot:
    """A batch whose pixels a worker left in a shared slot; so few labels travel cheaper by value."""

    slot: int
    labels: np.ndarray
    bad: tuple[BadImage, ...]


class _Numbers(Sampler[tuple[int, int | None]]):
    """Numbers of global batches, each with the slot for its pixels; asked for as batches are handed to workers."""

    def __init__(self, first: int, last: int, slots: SharedSlots) -> None:
        self._range, self._slots = range(first, last), slots

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        return ((number, self._slots.take()) for number in self._range)


def share(batch: Batch) -> Batch | Failure:
    """The batch in shared memory, ready to be handed over.

    The queue would do this too, but in a thread that drops what does not fit: nobody would hear of it, and the rank
    would wait for ever.
    """
    try:
        batch.images.share_memory_()
        batch.labels.share_memory_()
    except (RuntimeError, OSError) as error:
        return Failure(explain(error))
    return batch


class BatchReader(Dataset[Batch | InSlot | Failure]):
    """What turns the number of a global batch and a slot (or None) into this rank's part of that batch.

    Attributes:
        slots: where workers leave pixels.
        shape: of the images of a batch on this rank.
        batch_sizes: of every rank, in rank order.
    """

    slots: Sequence[Tensor] = ()
    shape: tuple[int, ...]
    batch_sizes: tuple[int, ...]


class BatchStream:
    """Batches first_batch .. last_batch - 1 of a run as one continuous stream; iterate it once.

    Workers live from the first batch to the last, over all epochs. What makes reading stop (a data error, a worker that
    dies, a lack of shared memory) is raised here, at the batch it belongs to, as a DataError. Or, with
    `carry_failures`, that batch comes with the error and zeros for images and labels, as do all after it where nothing
    more can be read.
    """

    def __init__(
        self,
        batches: BatchReader,
        first_batch: int,
        last_batch: int,
        *,
        num_workers: int,
        seed: int,
        carry_failures: bool,
        pin_memory: bool,
        start_method: Literal["fork", "spawn", "forkserver"] | None,
    ) -> None:
        """Starts nothing yet; the arguments are those of dataset.build_loader."""
        self._batches, self._first, self._last = batches, first_batch, last_batch
        self._num_workers, self._seed, self._carry_failures = num_workers, seed, carry_failures
        self._pin_memory, self._start_method = pin_memory, start_method

    def __len__(self) -> int:
        return self._last - self._first

    def __iter__(self) -> Iterator[Batch]:
        items, number, failure = None, self._first, None
        try:
            # Page-locked copies are made by a thread of torch's own, from memory that it knows.
            count = 0 if self._pin_memory else self._num_workers * (_PREFETCHED + 1) + bool(self._num_workers)
            slots = SharedSlots(count, self._batches.shape)
            items = start_readers(self._loader(slots))
            for item in items:
                if isinstance(item, InSlot):
                    labels, sizes = torch.from_numpy(item.labels), self._batches.batch_sizes
                    item = Batch(slots.open(item.slot), labels, sizes, bad=item.bad)
                number += 1
                yield self._failed(item.error) if isinstance(item, Failure) else item
                del item  # or its slot would not be free while the next batch is awaited
        except Exception as error:
            failure = explain(error, items)
            traceback.clear_frames(error.__traceback__)  # torch's frames hold the readers
        finally:
            items = None  # ends the readers now, not when somebody lets go of the error that leads here
        if failure is not None:
            for _ in range(number, self._last) if self._carry_failures else range(1):
                yield self._failed(failure)

    def _loader(self, slots: SharedSlots) -> DataLoader[Any]:
        self._batches.slots = slots.tensors
        return DataLoader(
            self._batches,
            batch_size=None,
            sampler=_Numbers(self._first, self._last, slots),
            num_workers=self._num_workers,
            prefetch_factor=_PREFETCHED if self._num_workers else None,
            collate_fn=_unchanged,
            pin_memory=self._pin_memory,
            worker_init_fn=prepare_reader,
            multiprocessing_context=self._start_method if self._num_workers else None,
            # Its own generator: starting workers must not move the state that resuming restores.
            generator=torch.Generator().manual_seed(self._seed),
        )

    def _failed(self, error: DataError) -> Batch:
        if not self._carry_failures:
            raise error
        images = torch.zeros(self._batches.shape, dtype=torch.uint8)
        labels = torch.zeros(len(images), dtype=torch.int64)
        return Batch(images, labels, self._batches.batch_sizes, failure=error)


def _unchanged(item: Any) -> Any:
    return item
