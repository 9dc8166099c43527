"""A run's training data as its config wants it: opened, made imbalanced, normalised. No batches, no test data."""

from __future__ import annotations

from pathlib import Path

from dataset import Source, imbalanced, normalized, open_source, with_format
from utils.config import Config
from utils.image_format_file import read_image_format


def open_training_source(config: Config) -> Source:
    """Opens `rec` with `imbalance` and `normalization` applied; the same on every rank and in a resumed run.

    A resumed run takes its mean image from the run's folder, whatever has become of the data.

    Raises:
        DataError: see open_source, imbalanced and normalized; or an image_format.json that no run wrote.
    """
    source = open_source(config.rec)
    source = imbalanced(source, config.imbalance, config.imbalance_ratio, config.seed, config.bad_records)
    if config.normalization == "mean_image" and config.resume and config.output is not None:
        known = read_image_format(Path(config.output), config.normalization)
        if known is not None:
            return with_format(source, known, config.normalization)
    return normalized(source, config.normalization, config.bad_records)
