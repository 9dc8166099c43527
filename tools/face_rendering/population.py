"""Which people, images and pairs make a data set, and the defaults of the quickstart. Draws nothing, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

NUM_FOLDS = 10
# people of the verification set are numbered from here: the set stays the same whatever the size of the training set
FIRST_EVAL_IDENTITY = 1_000_000
_MAX_EVAL_IMAGES = 12


class SyntheticError(DataError):
    """Arguments that make no data set, or an output folder that holds somebody else's."""


@dataclass(frozen=True)
class Population:
    """What is rendered; equal populations give equal bytes.

    Attributes:
        identities: people in the training set.
        images_per_identity: images of each of them.
        eval_identities: other people, for verification; at least two a fold.
        pairs: verification pairs, half of them of one person; a multiple of 20, for 10 balanced folds.
        seed: another seed, other people.
    """

    identities: int = 400
    images_per_identity: int = 25
    eval_identities: int = 100
    pairs: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.identities <= FIRST_EVAL_IDENTITY:
            problems.append(f"identities = {self.identities}: 1 to {FIRST_EVAL_IDENTITY} are possible")
        if self.images_per_identity < 1:
            problems.append(f"images_per_identity = {self.images_per_identity}: every identity needs an image")
        if self.eval_identities < 2 * NUM_FOLDS:
            problems.append(
                f"eval_identities = {self.eval_identities}: {NUM_FOLDS} folds of different people need {2 * NUM_FOLDS}"
            )
        if self.pairs < 2 * NUM_FOLDS or self.pairs % (2 * NUM_FOLDS):
            problems.append(f"pairs = {self.pairs}: {NUM_FOLDS} balanced folds need a multiple of {2 * NUM_FOLDS}")
        per_fold = self.eval_identities // NUM_FOLDS * _MAX_EVAL_IMAGES * (_MAX_EVAL_IMAGES - 1) // 2
        if self.pairs // (2 * NUM_FOLDS) > per_fold:
            problems.append(
                f"pairs = {self.pairs}: {self.eval_identities} eval identities give {2 * NUM_FOLDS * per_fold} at most"
            )
        if self.seed < 0:
            problems.append(f"seed = {self.seed}: it is 0 or more")
        if problems:
            raise SyntheticError("\n".join(problems))

    @property
    def eval_images(self) -> int:
        """Images of each person of the verification set; an image may serve in several pairs."""
        return min(_MAX_EVAL_IMAGES, max(2, -(-2 * self.pairs // self.eval_identities)))


def choose_pairs(population: Population) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Draws the verification pairs: no pair twice, no person in two folds, as many same as different in each fold.

    Returns:
        First and second images, int64 (pairs, 2) each, rows (person, image), and is_same, bool (pairs,).
    """
    rng = np.random.default_rng((population.seed, FIRST_EVAL_IDENTITY))
    first, second, is_same = [], [], []
    for people in np.array_split(np.arange(population.eval_identities), NUM_FOLDS):
        for same in (True, False):
            chosen: set[tuple[int, int, int, int]] = set()
            while len(chosen) < population.pairs // (2 * NUM_FOLDS):
                one, two = rng.choice(people, 2, replace=False)
                if same:
                    two = one
                i, j = rng.choice(population.eval_images, 2, replace=not same)
                pair = (int(one), int(i), int(two), int(j))
                if pair in chosen or (pair[2], pair[3], pair[0], pair[1]) in chosen:
                    continue
                chosen.add(pair)
                first.append(pair[:2])
                second.append(pair[2:])
                is_same.append(same)
    return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64), np.array(is_same)
