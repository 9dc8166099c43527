"""The order in which an epoch visits its images. No images, no batches."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from utils.permutation import derive_keys, permutation_rounds, permute

_ORDER = 1  # key stream of the seed; augmentation has another


class Order(Protocol):
    """Which image an epoch shows at each of its positions: a pure function of (seed, epoch, position).

    Any position can be asked for alone, so ranks and workers agree without talking and a run resumes anywhere.
    """

    @property
    def num_images(self) -> int:
        """Positions of an epoch: as many as the set has images."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether an image may come more than once in an epoch."""
        ...

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The images at any positions of an epoch, int64 of the same length."""
        ...


class EpochOrder:
    """The order in which an epoch visits the images: a pseudo-random permutation computed where it is needed.

    Nothing is shuffled or stored, so an epoch of 42 million images starts as fast as one of 100, any batch can be
    computed alone, and every rank and worker agrees without talking.
    """

    repeats = False

    def __init__(self, num_images: int, seed: int) -> None:
        """`num_images` >= 1; `seed` >= 0.

        Raises:
            ValueError: where either is out of range.
        """
        if num_images < 1:
            raise ValueError(f"EpochOrder: num_images is {num_images}, at least 1 is needed")
        if seed < 0:
            raise ValueError(f"EpochOrder: seed is {seed}, a whole number >= 0 is needed")
        self.num_images, self.seed = num_images, seed

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The images at positions [start, stop) of an epoch, int64 (stop - start,).

        Raises:
            ValueError: positions outside [0, num_images], or a negative epoch.
        """
        if not 0 <= start <= stop <= self.num_images:
            raise ValueError(f"EpochOrder: positions {start} .. {stop} are not within 0 .. {self.num_images}")
        keys = derive_keys(permutation_rounds(), self.seed, epoch, _ORDER)
        return permute(np.arange(start, stop, dtype=np.int64), self.num_images, keys)

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The images at any positions of an epoch, int64 of the same length.

        Raises:
            ValueError: positions outside [0, num_images), or a negative epoch.
        """
        if len(positions) and not (positions.min() >= 0 and positions.max() < self.num_images):
            raise ValueError(f"EpochOrder: positions are not within 0 .. {self.num_images - 1}")
        return permute(positions, self.num_images, derive_keys(permutation_rounds(), self.seed, epoch, _ORDER))
