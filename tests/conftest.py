"""Fixtures that every test may use: the pool of gloo ranks. No helpers, no data, no formulas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ranks import RankPool


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPool]:
    """Three processes that run a function as 1, 2 or 3 gloo ranks; they start at the first `ranks.run`."""
    pool = RankPool()
    yield pool
    pool.close()
