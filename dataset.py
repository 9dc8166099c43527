"""The front door to training data: batches from any source, in the order of an epoch. No file format, no training."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch.utils.data import get_worker_info

from sources import Source, SourceError, open_source, test_location
from sources.imbalance import imbalanced
from sources.normalization import normalized, with_format
from sources.substitutes import ImageReader, KnownClasses
from utils.augmentation import AUGMENTATIONS, place_augmented
from utils.bad_records import BadImage
from utils.batch_stream import Batch, BatchReader, BatchStream, Failure, InSlot, share
from utils.epoch_order import EpochOrder
from utils.errors import DataError
from utils.identity_order import build_order
from utils.permutation import derive_keys, keyed_hash
from utils.reader_process import explain

__all__ = [
    "AUGMENTATIONS",
    "Batch",
    "BatchStream",
    "EpochOrder",
    "KnownClasses",
    "Source",
    "SourceError",
    "batches_per_epoch",
    "build_loader",
    "imbalanced",
    "normalized",
    "open_source",
    "test_location",
    "with_format",
]

_AUGMENTATION = 2  # key stream of the seed; the epoch's order has another
_PLANNED = 32  # batches whose images are worked out together: of one they cost nearly as much as of thirty


def batches_per_epoch(num_images: int, global_batch_size: int) -> int:
    """Global batches in an epoch: an incomplete last one is dropped (other images each time), one always remains."""
    return max(1, num_images // global_batch_size)


class _GlobalBatches(BatchReader):
    """Maps the number of a global batch, counted over the whole run, to this rank's part of it."""

    def __init__(
        self, source: Source, *, seed: int, batch_size: int, rank: int, world_size: int, augmentation: str,
        sampler: str, images_per_identity: int, bad_records: str,
    ) -> None:  # fmt: skip
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation {augmentation!r} is unknown; allowed: {', '.join(AUGMENTATIONS)}")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"batch_size {batch_size} for rank {rank} of {world_size}: at least 1 image, rank from 0")
        if len(source) < world_size:
            path = source.describe()["path"]
            raise SourceError(f"{path}: {len(source)} images for {world_size} ranks; start fewer ranks")
        self._seed, self._rank, self._augmentation = seed, rank, augmentation
        self._images = ImageReader(source, seed, bad_records)
        self._global_size = min(batch_size * world_size, len(source))
        self._order = build_order(
            KnownClasses(source, bad_records), sampler, images_per_identity, seed, self._global_size
        )
        self._per_epoch = batches_per_epoch(len(source), batch_size * world_size)
        even, rest = divmod(self._global_size, world_size)
        self.batch_sizes = tuple(even + (r < rest) for r in range(world_size))
        self.shape = (self.batch_sizes[rank], *source.image_format.shape)
        self._planned: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, item: tuple[int, int | None]) -> Batch | InSlot | Failure:
        number, slot = item
        if number not in self._planned:
            self._plan(number)
        indices, draws = self._planned.pop(number)
        epoch, batch = divmod(number, self._per_epoch)
        images = np.empty(self.shape, dtype=np.uint8) if slot is None else self.slots[slot].numpy()
        bad: list[BadImage] = []
        try:
            labels = self._read(indices, draws, epoch, images, bad)
        except (DataError, OSError) as error:
            return Failure(explain(error).within(f"batch {batch} of epoch {epoch}"))
        if slot is not None:
            return InSlot(slot, labels, tuple(bad))
        whole = Batch(torch.from_numpy(images), torch.from_numpy(labels), self.batch_sizes, bad=tuple(bad))
        return whole if get_worker_info() is None else share(whole)

    def _plan(self, number: int) -> None:
        """Works out images and draws of the batches that this process will be asked for next, ``number`` the first."""
        worker, epoch = get_worker_info(), number // self._per_epoch
        stride = 1 if worker is None else worker.num_workers  # workers take turns
        numbers = np.arange(number, min(number + stride * _PLANNED, (epoch + 1) * self._per_epoch), stride)
        starts = (numbers - epoch * self._per_epoch) * self._global_size + sum(self.batch_sizes[: self._rank])
        positions = starts[:, None] + np.arange(self.batch_sizes[self._rank])
        indices = self._order.at(epoch, positions.reshape(-1))
        drawn = positions.reshape(-1) if self._order.repeats else indices
        draws = keyed_hash(drawn.astype(np.uint64), derive_keys(1, self._seed, epoch, _AUGMENTATION)[0])
        pairs = zip(indices.reshape(positions.shape), draws.reshape(positions.shape), strict=True)
        self._planned = dict(zip(numbers.tolist(), pairs, strict=True))

    def _read(
        self, indices: np.ndarray, draws: np.ndarray, epoch: int, images: np.ndarray, bad: list[BadImage]
    ) -> np.ndarray:
        """Fills ``images`` and appends to ``bad``; returns the labels, int64 (B,)."""
        labels = np.empty(len(indices), dtype=np.int64)
        for row, (index, draw) in enumerate(zip(indices.tolist(), draws.tolist(), strict=True)):
            image, labels[row] = self._images.read(index, epoch, bad)
            place_augmented(image, images[row], draw, self._augmentation)
        return labels


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
    sampler: str = "uniform",
    images_per_identity: int = 4,
    bad_records: str = "stop",
    carry_failures: bool = False,
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
        sampler, images_per_identity: see utils.identity_order.build_order.
        bad_records: an image that cannot be read is an error ("stop"), or is replaced by another and reported ("skip").
        carry_failures: hand errors out with their batches instead of raising them, for ranks that must stop together.
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
        source, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size, augmentation=augmentation,
        sampler=sampler, images_per_identity=images_per_identity, bad_records=bad_records,
    )  # fmt: skip
    return BatchStream(
        batches, first_batch, last_batch, num_workers=num_workers, seed=seed, carry_failures=carry_failures,
        pin_memory=pin_memory, start_method=start_method,
    )  # fmt: skip
