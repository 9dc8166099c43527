"""What every test has: the pool of gloo ranks, the same random numbers each time. No helpers, no data, no formulas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.ranks import RankPool


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPool]:
    """Three processes that run a function as 1, 2 or 3 gloo ranks; they start at the first `ranks.run`."""
    pool = RankPool()
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Weights that a test draws do not depend on which tests ran before it: a failure comes again when run alone."""
    torch.manual_seed(0)
