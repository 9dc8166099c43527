"""A run's training data as its config wants it: opened, and made imbalanced. No batches, no test data."""

from __future__ import annotations

from dataset import Source, imbalanced, open_source
from utils.config import Config


def open_training_source(config: Config) -> Source:
    """Opens `rec` with `imbalance` applied; the same images on every rank and in a resumed run.

    Raises:
        DataError: see open_source and imbalanced.
    """
    source = open_source(config.rec)
    return imbalanced(source, config.imbalance, config.imbalance_ratio, config.seed, config.bad_records)
