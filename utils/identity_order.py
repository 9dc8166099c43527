"""Orders that look at classes: each class as often as the others, or groups of images of one identity. No images."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from utils.class_index import ClassIndex
from utils.epoch_order import EpochOrder, Order
from utils.permutation import derive_keys, keyed_hash, permute_within

SAMPLERS = ("uniform", "class_balanced", "identities")
_CLASSES, _IMAGES = 3, 4  # key streams of the seed


class Indexed(Protocol):
    """What an order needs of a source."""

    def __len__(self) -> int: ...

    def class_index(self) -> ClassIndex:
        """Which images belong to which class."""
        ...


def build_order(source: Indexed, sampler: str, images_per_identity: int, seed: int, global_batch_size: int) -> Order:
    """The order in which a run visits the images of a source.

    Args:
        source: asked for its length, and for its class index where the sampler needs one.
        sampler: one of SAMPLERS.
        images_per_identity: for "identities".
        seed: >= 0.
        global_batch_size: images of all ranks in a batch, for "identities".

    Raises:
        ValueError: an argument out of range.
        DataError: the source cannot tell its classes.
    """
    if sampler == "uniform":
        return EpochOrder(len(source), seed)
    if sampler == "class_balanced":
        return ClassBalancedOrder(source.class_index(), len(source), seed)
    if sampler == "identities":
        return IdentityOrder(source.class_index(), len(source), seed, images_per_identity, global_batch_size)
    raise ValueError(f"build_order: sampler {sampler!r} is unknown; allowed: {', '.join(SAMPLERS)}")


class _ClassOrder:
    """What both orders share: rounds in which each inhabited class has one turn, and the images of those turns.

    Turn ``t`` of a class shows the images ``t * size .. t * size + size - 1`` of a permutation of its images; when they
    are used up, the next cycle begins with another permutation. A class's turn is a number that position and epoch
    give, so nothing is counted and nothing saved.
    """

    repeats = True

    def __init__(self, name: str, index: ClassIndex, num_images: int, seed: int) -> None:
        self.num_images, self.seed = num_images, seed
        if not 1 <= index.counts.sum() <= num_images:
            raise ValueError(f"{name}: {index.counts.sum()} of {num_images} images are in a class, at least 1 must be")
        if seed < 0:
            raise ValueError(f"{name}: seed is {seed}, a whole number >= 0 is needed")
        self._name, self._index = name, index
        self._inhabited = np.flatnonzero(index.counts)
        self._image_key = derive_keys(1, seed, 0, _IMAGES)[0]

    @property
    def num_classes(self) -> int:
        """Classes that have images."""
        return len(self._inhabited)

    def _check(self, positions: np.ndarray) -> None:
        if len(positions) and not (positions.min() >= 0 and positions.max() < self.num_images):
            raise ValueError(f"{self._name}: positions are not within 0 .. {self.num_images - 1}")

    def _classes(self, epoch: int, rounds: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The classes at ``slots`` of ``rounds``; a round is a permutation of the inhabited classes."""
        keys = keyed_hash(rounds.astype(np.uint64), derive_keys(1, self.seed, epoch, _CLASSES)[0])
        return self._inhabited[permute_within(slots, np.full(len(slots), self.num_classes), keys)]

    def _images(self, classes: np.ndarray, turns: np.ndarray, size: int, member: np.ndarray) -> np.ndarray:
        """Image ``member`` (below size) of a turn of each class."""
        counts = self._index.counts[classes]
        cycles, turn = np.divmod(turns, np.maximum(counts // size, 1))
        keys = keyed_hash(cycles.astype(np.uint64), keyed_hash(classes.astype(np.uint64), self._image_key))
        return self._index.image(classes, permute_within((turn * size + member) % counts, counts, keys))


class ClassBalancedOrder(_ClassOrder):
    """Each class equally often, whatever its number of images; an epoch is as long as the set.

    An epoch is a row of rounds, each showing every class once in an order of its own; the last may be incomplete, so
    within an epoch the classes differ by one at most. A class shows all its images in turn before one comes again,
    across epochs too (the incomplete round shows what the next epoch begins with).
    """

    def __init__(self, index: ClassIndex, num_images: int, seed: int) -> None:
        """Takes the classes of a set of `num_images`, of which at least one is in a class; `seed` >= 0.

        Raises:
            ValueError: where either is out of range.
        """
        super().__init__("ClassBalancedOrder", index, num_images, seed)
        self._whole_rounds = self.num_images // self.num_classes

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The images at any positions of an epoch, int64 of the same length.

        Raises:
            ValueError: positions outside [0, num_images), or a negative epoch.
        """
        self._check(positions)
        rounds, slots = np.divmod(positions.astype(np.int64), self.num_classes)
        turns = epoch * self._whole_rounds + rounds
        return self._images(self._classes(epoch, rounds, slots), turns, 1, np.zeros_like(slots))


class IdentityOrder(_ClassOrder):
    """Consecutive groups of different images of one class; an epoch is as long as the set.

    The batches of an epoch are dealt into rounds: a round is as many whole batches as the classes can fill without
    one of them coming twice, so no class comes twice in a batch. The classes left over sit out, others in each round.
    Where a batch asks for more groups than there are classes, it shows every class as often (within one). A class with
    fewer images than a group repeats them within it.
    """

    def __init__(
        self, index: ClassIndex, num_images: int, seed: int, images_per_identity: int, global_batch_size: int
    ) -> None:
        """Takes the classes of a set.

        Args:
            index: of the set, with at least one image.
            num_images: of the set; those without a class never come.
            seed: >= 0.
            images_per_identity: images of a group, >= 1.
            global_batch_size: images of all ranks in a batch; a last group is cut where it is no multiple of the group.

        Raises:
            ValueError: an argument out of range.
        """
        super().__init__("IdentityOrder", index, num_images, seed)
        if images_per_identity < 1 or global_batch_size < 1:
            raise ValueError(
                f"IdentityOrder: groups of {images_per_identity} in batches of {global_batch_size}; at least 1 each"
            )
        self._group_size, self._batch_size = images_per_identity, global_batch_size
        self._groups = -(-global_batch_size // images_per_identity)  # of a batch
        self._batches_per_round = self.num_classes // self._groups
        self._rounds_per_batch = -(-self._groups // self.num_classes)
        batches = -(-self.num_images // global_batch_size)
        self._rounds = (
            -(-batches // self._batches_per_round) if self._batches_per_round else batches * self._rounds_per_batch
        )

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The images at any positions of an epoch, int64 of the same length.

        Raises:
            ValueError: positions outside [0, num_images), or a negative epoch.
        """
        self._check(positions)
        batches, inside = np.divmod(positions.astype(np.int64), self._batch_size)
        groups, member = np.divmod(inside, self._group_size)
        if self._batches_per_round:
            rounds, slots = np.divmod(batches * self._groups + groups, self._batches_per_round * self._groups)
        else:
            rounds, slots = np.divmod(groups, self.num_classes)
            rounds += batches * self._rounds_per_batch
        turns = epoch * self._rounds + rounds
        return self._images(self._classes(epoch, rounds, slots), turns, self._group_size, member)
