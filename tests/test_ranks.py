"""Tests of the pool of gloo ranks that the other tests stand on."""

from __future__ import annotations

import os
import time

import pytest

from tests.ranks import RankError, RankPool


def identity(value: object) -> tuple[int, int, int, object]:
    from torch import distributed

    return os.getpid(), distributed.get_rank(), distributed.get_world_size(), value


def total() -> float:
    import torch
    from torch import distributed

    value = torch.tensor(float(distributed.get_rank() + 1))
    distributed.all_reduce(value)
    return float(value)


def fail_on(bad_rank: int) -> float:
    from torch import distributed

    if distributed.get_rank() == bad_rank:
        raise KeyError(f"from rank {bad_rank}")
    return total()


def sleep_on(slow_rank: int) -> None:
    from torch import distributed

    if distributed.get_rank() == slow_rank:
        time.sleep(30)


def die() -> None:
    os._exit(7)


def has_group() -> bool:
    from torch import distributed

    return distributed.is_initialized()


def test_every_rank_answers_from_a_process_that_stays(ranks: RankPool) -> None:
    first = ranks.run(3, identity, "a")
    second = ranks.run(2, identity, "b")
    assert [answer[1:] for answer in first] == [(0, 3, "a"), (1, 3, "a"), (2, 3, "a")]
    assert [answer[1:] for answer in second] == [(0, 2, "b"), (1, 2, "b")]
    assert [answer[0] for answer in first[:2]] == [answer[0] for answer in second]


def test_collectives_span_the_ranks_of_the_call_only(ranks: RankPool) -> None:
    assert [ranks.run(size, total) for size in (3, 1, 2)] == [[6.0] * 3, [1.0], [3.0] * 2]


def test_without_a_group(ranks: RankPool) -> None:
    assert ranks.run(1, has_group, group=False) == [False]


def test_the_exception_of_a_rank_arrives_with_its_traceback(ranks: RankPool) -> None:
    with pytest.raises(KeyError, match="from rank 1") as caught:
        ranks.run(3, fail_on, 1)
    assert "rank 1 of 3" in str(caught.value.__cause__)
    assert "fail_on" in str(caught.value.__cause__)
    assert ranks.run(3, total) == [6.0] * 3  # and the pool lives on


def test_a_hanging_rank_is_named_and_the_pool_recovers() -> None:
    pool = RankPool()
    try:
        with pytest.raises(TimeoutError, match="rank 1 of 2") as caught:
            pool.run(2, sleep_on, 1, timeout=2)
        assert "sleep_on" in str(caught.value)
        with pytest.raises(RankError, match="exit code 7"):
            pool.run(1, die)
    finally:
        pool.close()


def test_a_world_size_outside_the_pool_is_refused(ranks: RankPool) -> None:
    with pytest.raises(ValueError, match=r"allowed are 1 .. 3"):
        ranks.run(4, total)
