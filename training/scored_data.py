"""What a run is scored on: sets of pairs, or the test images of a classification. Opened here, scored elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from dataset import Source, open_source, test_location
from eval.classification import embed_source
from eval.embedder import ModuleEmbedder, evaluating
from eval.embedding import embed_pairs
from eval.pair_formats.pair_list import one_kind_warning
from eval.pairs import PairSet, load_pair_sets
from eval.verification_tables import one_kind_folds
from training.samples import describe_classes, look_at_pairs, look_for_overlap
from utils.config import Config
from utils.distributed import Ranks
from utils.errors import DataError
from utils.images import ImageFormat

MEASURED_SECONDS = 4.0  # that timing some of the images may take


@dataclass(frozen=True)
class PairSets:
    """The verification sets of a run, in the order of `val_targets`; there may be none.

    Attributes:
        sets: the sets.
        best_by: what the best weights are chosen by.
    """

    sets: Sequence[PairSet] = ()
    best_by: ClassVar[str] = "mean accuracy"

    @property
    def num_images(self) -> int:
        """Images that are embedded for one scoring, each of them twice: mirrored too."""
        return sum(_distinct_images(pairs) for pairs in self.sets)

    def describe(self) -> str:
        """What the run will do with them."""
        names = ", ".join(f"{pairs.name} ({len(pairs.is_same)} pairs)" for pairs in self.sets)
        return f"verified on {names or 'nothing'}"

    def warnings(self) -> list[str]:
        """What to know of them before their accuracies are believed."""
        lonely = {pairs.name: (one_kind_folds(pairs), pairs.num_folds) for pairs in self.sets}
        return [f"{name}: {one_kind_warning(few, folds)}" for name, (few, folds) in lonely.items() if few]

    def fingerprint(self) -> dict[str, Any]:
        """What tells that they are the same as in another run."""
        return {"verification": {pairs.name: pairs.data_sha256 for pairs in self.sets}}

    def look(self, training: Source | None) -> tuple[list[str], list[str]]:
        """Findings and problems of some of their images, and whether these are among the training images."""
        looked = [look_at_pairs(pairs) for pairs in self.sets]
        findings = [finding for finding, _ in looked]
        problems = [problem for _, found in looked for problem in found]
        return findings + ([] if training is None else look_for_overlap(training, self.sets)), problems

    def measure(self, backbone: nn.Module, image_format: ImageFormat, ranks: Ranks, seconds_per_pass: float) -> float:
        """Seconds that one scoring will take, from some pairs of the first set; collective."""
        if not self.sets:
            return 0.0
        first = self.sets[0]
        fitting = max(1, MEASURED_SECONDS / (4 * seconds_per_pass) // 2)  # two passes an image, all of it twice
        pairs = int(min(fitting, 64 * ranks.world_size, len(first.is_same)))
        sample = _first_pairs(first, pairs)
        embedder = ModuleEmbedder(backbone, ranks.device, "fp32", image_format=image_format)
        with evaluating(embedder.model):
            seconds = _second_time(lambda: embed_pairs(embedder, sample))
        return seconds / (2 * pairs) * self.num_images


@dataclass(frozen=True)
class ClassifiedImages:
    """The test images of a classification, of the classes and the size of the training data.

    Attributes:
        source: the images.
        best_by: what the best weights are chosen by.
    """

    source: Source
    best_by: ClassVar[str] = "top-1"

    @property
    def num_images(self) -> int:
        """Images that are embedded for one scoring."""
        return len(self.source)

    def describe(self) -> str:
        """What the run will do with them."""
        return f"tested on {len(self.source)} images"

    def warnings(self) -> list[str]:
        """Nothing is known to go wrong here."""
        return []

    def fingerprint(self) -> dict[str, Any]:
        """What tells that they are the same as in another run."""
        return {"verification": {}, "test": self.source.describe()}

    def look(self, training: Source | None) -> tuple[list[str], list[str]]:
        """Findings: counts of the classes."""
        return [f"test images: {describe_classes(self.source)}"], []

    def measure(self, backbone: nn.Module, image_format: ImageFormat, ranks: Ranks, seconds_per_pass: float) -> float:
        """Seconds that one scoring will take, from some of the images; collective."""
        fitting = max(1, MEASURED_SECONDS / (2 * seconds_per_pass))  # all of it twice
        images = int(min(fitting, 256 * ranks.world_size, len(self.source)))
        chosen = np.arange(images)
        seconds = _second_time(
            lambda: embed_source(backbone, self.source, image_format=image_format, indices=chosen, device=ranks.device)
        )
        return seconds / images * len(self.source)


Scored = PairSets | ClassifiedImages


def open_scored(config: Config, source: Source | None, problems: list[str]) -> Scored:
    """What a config names to be scored on; what cannot be opened is told in `problems`."""
    if config.task != "classification":
        return PairSets(open_pair_sets(config, problems))
    test = open_test(config, source, problems)
    return PairSets() if test is None else ClassifiedImages(test)


def open_pair_sets(config: Config, problems: list[str]) -> list[PairSet]:
    """The verification sets in the order of `val_targets`; what cannot be opened is told in `problems`."""
    # Where data and verification sets are one folder that is not there, one line about it is enough.
    if config.verification_dir == config.rec and not Path(config.rec).exists() and problems:
        return []
    found: list[PairSet] = []
    for target in config.val_targets:
        try:
            found += load_pair_sets(target, Path(config.verification_dir))
        except (DataError, OSError) as error:
            problems.append(f"val_targets: {error}")
    return found


def open_test(config: Config, source: Source | None, problems: list[str]) -> Source | None:
    """The test images of a classification, of the classes and the size of the training data.

    Args:
        config: with task "classification".
        source: the training data; None where it could not be opened, which has been told.
        problems: gets a line for each problem.
    """
    if source is None:
        return None
    location = config.test if config.test is not None else test_location(config.rec)
    if location is None:
        problems.append(
            f"test: {config.rec} has no test half of its own: name the test images with test=LOCATION, or train "
            "without them with task=faces"
        )
        return None
    try:
        test = open_source(location)
    except (DataError, OSError) as error:
        problems.append(f"test: {error}")
        return None
    if test.num_classes != source.num_classes or test.image_format.shape != source.image_format.shape:
        problems.append(
            f"test: {location} holds {_size(test)}, the training data {_size(source)}: test images must be of the same "
            "classes and size"
        )
    return test


def _size(source: Source) -> str:
    height, width, channels = source.image_format.shape
    return f"{source.num_classes} classes of images of {height} x {width} x {channels}"


def _distinct_images(pair_set: PairSet) -> int:
    return len(np.unique(pair_set.first_index)) if len(pair_set.first_index) else len(pair_set.images)


def _first_pairs(pair_set: PairSet, pairs: int) -> PairSet:
    """Some pairs as a set of their own, whose images are all embedded."""
    images = [pair_set.images[index] for index in range(2 * pairs)]
    return PairSet(pair_set.name, images, pair_set.is_same[:pairs], 1, pair_set.data_sha256)


def _second_time(work: Callable[[], object]) -> float:
    """Seconds of the second of two rounds: the first one chooses algorithms."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return seconds
