"""The front door to training data: batches from any source, in the order of an epoch. No file format, no training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from sources import Source, SourceError, open_source
from utils.augmentation import AUGMENTATIONS, place_augmented
from utils.epoch_order import EpochOrder
from utils.errors import DataError
from utils.permutation import derive_keys, keyed_hash
from utils.reader_process import prepare_reader
from utils.shared_slots import SharedSlots

__all__ = [
    "AUGMENTATIONS",
    "Batch",
    "BatchStream",
    "EpochOrder",
    "Source",
    "SourceError",
    "batches_per_epoch",
    "build_loader",
    "open_source",
]

_AUGMENTATION = 2  # key stream of the seed; the epoch's order has another
_PLANNED = 32  # batches whose images are worked out together: of one they cost nearly as much as of thirty
_PREFETCHED = 2  # batches that each worker is ahead


@dataclass(frozen=True)
class Batch:
    """This rank's part of one global batch.

    Attributes:
        images: uint8 (B, H, W, C), RGB order.
        labels: int64 (B,).
        batch_sizes: B of every rank, in rank order.
    """

    images: Tensor
    labels: Tensor
    batch_sizes: tuple[int, ...]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the DataLoader calls this where asked to pin."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.batch_sizes)


def batches_per_epoch(num_images: int, global_batch_size: int) -> int:
    """Global batches in an epoch: an incomplete last one is dropped (other images each time), one always remains."""
    return max(1, num_images // global_batch_size)


@dataclass(frozen=True)
class _Failure:
    """A data error on its way from a worker: torch would rebuild it from its text alone and lose what it names."""

    error: DataError


@dataclass(frozen=True)
class _InSlot:
    """A batch whose pixels a worker left in a shared slot; so few labels travel cheaper by value."""

    slot: int
    labels: np.ndarray


class _Numbers(Sampler[tuple[int, int | None]]):
    """Numbers of global batches, each with the slot for its pixels; asked for as batches are handed to workers."""

    def __init__(self, first: int, last: int, slots: SharedSlots) -> None:
        self._range, self._slots = range(first, last), slots

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        return ((number, self._slots.take()) for number in self._range)


class _GlobalBatches(Dataset[Batch | _InSlot | _Failure]):
    """Maps the number of a global batch, counted over the whole run, to this rank's part of it."""

    slots: Sequence[Tensor] = ()  # where workers leave pixels

    def __init__(
        self, source: Source, *, seed: int, batch_size: int, rank: int, world_size: int, augmentation: str
    ) -> None:
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation {augmentation!r} is unknown; allowed: {', '.join(AUGMENTATIONS)}")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"batch_size {batch_size} for rank {rank} of {world_size}: at least 1 image, rank from 0")
        if len(source) < world_size:
            path = source.describe()["path"]
            raise SourceError(f"{path}: {len(source)} images for {world_size} ranks; start fewer ranks")
        self._source, self._seed, self._rank, self._augmentation = source, seed, rank, augmentation
        self._order = EpochOrder(len(source), seed)
        self._global_size = min(batch_size * world_size, len(source))
        self._per_epoch = batches_per_epoch(len(source), batch_size * world_size)
        share, rest = divmod(self._global_size, world_size)
        self.batch_sizes = tuple(share + (r < rest) for r in range(world_size))
        self.shape = (self.batch_sizes[rank], *source.image_format.shape)
        self._planned: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, item: tuple[int, int | None]) -> Batch | _InSlot | _Failure:
        number, slot = item
        if number not in self._planned:
            self._plan(number)
        indices, draws = self._planned.pop(number)
        images = np.empty(self.shape, dtype=np.uint8) if slot is None else self.slots[slot].numpy()
        try:
            labels = self._read(indices, draws, images)
        except DataError as error:
            epoch, batch = divmod(number, self._per_epoch)
            return _Failure(error.within(f"batch {batch} of epoch {epoch}"))
        if slot is not None:
            return _InSlot(slot, labels)
        return Batch(torch.from_numpy(images), torch.from_numpy(labels), self.batch_sizes)

    def _plan(self, number: int) -> None:
        """Works out images and draws of the batches that this process will be asked for next, ``number`` the first."""
        worker, epoch = get_worker_info(), number // self._per_epoch
        stride = 1 if worker is None else worker.num_workers  # workers take turns
        numbers = np.arange(number, min(number + stride * _PLANNED, (epoch + 1) * self._per_epoch), stride)
        starts = (numbers - epoch * self._per_epoch) * self._global_size + sum(self.batch_sizes[: self._rank])
        positions = starts[:, None] + np.arange(self.batch_sizes[self._rank])
        indices = self._order.at(epoch, positions.reshape(-1))
        draws = keyed_hash(indices.astype(np.uint64), derive_keys(1, self._seed, epoch, _AUGMENTATION)[0])
        pairs = zip(indices.reshape(positions.shape), draws.reshape(positions.shape), strict=True)
        self._planned = dict(zip(numbers.tolist(), pairs, strict=True))

    def _read(self, indices: np.ndarray, draws: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Fills ``images``; returns the labels, int64 (B,)."""
        image_format = self._source.image_format
        labels = np.empty(len(indices), dtype=np.int64)
        for row, (index, draw) in enumerate(zip(indices.tolist(), draws.tolist(), strict=True)):
            try:
                image, labels[row] = self._source.read(index)
            except DataError as error:
                raise error.within(f"image {index} of {self._source.describe()['path']}") from None
            if image.shape != image_format.shape:
                raise SourceError(f"image {index} has shape {image.shape}, the source promises {image_format.shape}")
            place_augmented(image, images[row], draw, self._augmentation)
        return labels


class BatchStream:
    """Batches first_batch .. last_batch - 1 of a run as one continuous stream; iterate it once.

    Workers live from the first batch to the last, over all epochs. A data error in a worker is raised here as itself,
    at the batch it belongs to.
    """

    def __init__(
        self, loader: DataLoader[Batch | _InSlot | _Failure], slots: SharedSlots, batch_sizes: tuple[int, ...]
    ) -> None:
        self._loader, self._slots, self._batch_sizes = loader, slots, batch_sizes

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for item in self._loader:
            if isinstance(item, _Failure):
                raise item.error
            if isinstance(item, _InSlot):
                item = Batch(self._slots.open(item.slot), torch.from_numpy(item.labels), self._batch_sizes)
            yield item
            del item  # or its slot would not be free while the next batch is awaited


def _unchanged(item: Any) -> Any:
    return item


def build_loader(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    rank: int,
    world_size: int,
    first_batch: int,
    last_batch: int,
    num_workers: int,
    augmentation: str = "flip",
    pin_memory: bool = False,
    start_method: Literal["fork", "spawn", "forkserver"] | None = None,
) -> BatchStream:
    """Batches of a run, in an order that depends on (seed, epoch, index) alone.

    Global batch g of the run is batch g % per_epoch of epoch g // per_epoch; rank r gets a contiguous slice. With the
    same global batch size, any number of ranks and workers sees the same images in the same order, mirrored alike.

    Args:
        source: any Source.
        seed: >= 0; selects order and augmentation.
        batch_size: images per rank; less where the whole set has fewer than one global batch.
        rank, world_size: this process among all.
        first_batch: the first global batch to deliver: 0, or where a resumed run goes on.
        last_batch: one past the last.
        num_workers: processes that read and decode; 0 reads in this process.
        augmentation: one of utils.augmentation.AUGMENTATIONS.
        pin_memory: page-locked batches, for a copy to the GPU that does not block.
        start_method: how workers start; None for the system's way.

    Raises:
        SourceError: fewer images than ranks.
        ValueError: an argument out of range.
    """
    if first_batch < 0 or last_batch < first_batch or num_workers < 0:
        raise ValueError(
            f"build_loader: batches {first_batch} .. {last_batch} with {num_workers} workers; the first batch is at "
            "least 0, the last not below it, the workers at least 0"
        )
    batches = _GlobalBatches(
        source, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size, augmentation=augmentation
    )
    # Page-locked copies are made by a thread of torch's own, from memory that it knows.
    slots = SharedSlots(0 if pin_memory else num_workers * (_PREFETCHED + 1) + bool(num_workers), batches.shape)
    batches.slots = slots.tensors
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=_Numbers(first_batch, last_batch, slots),
        num_workers=num_workers,
        prefetch_factor=_PREFETCHED if num_workers else None,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        worker_init_fn=prepare_reader,
        multiprocessing_context=start_method if num_workers else None,
        # Its own generator: starting workers must not move the state that resuming restores.
        generator=torch.Generator().manual_seed(seed),
    )
    return BatchStream(loader, slots, batches.batch_sizes)
