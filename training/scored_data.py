"""Opens what a run is scored on: sets of pairs, or the test images of a classification. Scores nothing."""

from __future__ import annotations

from pathlib import Path

from dataset import Source, open_source, test_location
from eval.pairs import PairSet, load_pair_sets
from utils.config import Config
from utils.errors import DataError


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
