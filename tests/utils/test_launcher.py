"""What torchrun's store and Slurm's variables are taken for, without either of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import Store, TCPStore

from utils.launcher import adopt_slurm, fresh_store, is_begun, past_failure, tell_begun, tell_failure

SECONDS = timedelta(seconds=20)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """The store of a torchrun that started this process."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return store


def test_ranks_after_a_restart_know_what_the_ones_before_have_left(agent: TCPStore) -> None:
    assert (is_begun(), past_failure()) == (False, None)
    tell_begun()
    assert (is_begun(), past_failure()) == (True, None)
    tell_failure("DataError: bad")
    tell_failure("DataError: later")
    assert past_failure() == "DataError: bad"


def test_nothing_is_known_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    tell_begun()
    tell_failure("x")
    assert (is_begun(), past_failure(), fresh_store(0, 1, SECONDS)) == (False, None, None)


def start(world_size: int) -> list[Store]:
    with ThreadPoolExecutor(world_size) as pool:
        found = list(pool.map(lambda rank: fresh_store(rank, world_size, SECONDS), range(world_size)))
    assert all(store is not None for store in found)
    return [store for store in found if store is not None]


def test_ranks_of_one_start_meet_where_no_other_start_was(agent: TCPStore) -> None:
    first = start(3)
    first[0].set("address", "old")
    assert [store.get("address") for store in first] == [b"old"] * 3
    agent.set("train/asks/2", "one who is gone")
    for stores in (start(3), start(2), start(1)):
        assert not stores[0].check(["address"])
        stores[-1].set("address", "new")
        assert [store.get("address") for store in stores] == [b"new"] * len(stores)
    assert first[1].get("address") == b"old"


def test_a_start_without_all_ranks_fails(agent: TCPStore) -> None:
    with pytest.raises(RuntimeError, match=r"ranks \[1\] did not start"):
        fresh_store(0, 2, timedelta(seconds=0.1))


STEP = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "11", "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
    "SLURM_STEP_NODELIST": "gpu[07-08,12]",
}  # fmt: skip
OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


def adopted(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> list[str | None]:
    with monkeypatch.context() as patch:
        for name in (*[name for name in os.environ if name.startswith("SLURM_")], *OURS, "MASTER_PORT"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        before = dict(os.environ)
        adopt_slurm()
        values = [os.environ.get(name) for name in OURS]
        for name in set(os.environ) - set(before):
            del os.environ[name]
    return values


def test_a_task_of_srun_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adopted(monkeypatch, STEP) == ["9", "11", "1", "3", "gpu07"]
    named = {**STEP, "SLURM_STEP_NODELIST": "login,gpu1", "SLURM_NODEID": "1"}
    assert adopted(monkeypatch, named) == ["9", "11", "1", "4", "login"]
    assert adopted(monkeypatch, {**STEP, "MASTER_ADDR": "10.0.0.7"})[-1] == "10.0.0.7"


@pytest.mark.parametrize(
    "variables",
    [{}, {**STEP, "SLURM_STEP_ID": "batch"}, {**STEP, "SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_NTASKS": "4"}],
)
def test_everything_else_is_no_task_of_srun(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert adopted(monkeypatch, variables) == [None] * 5


def test_torchrun_inside_a_step_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adopted(monkeypatch, {**STEP, "RANK": "0", "WORLD_SIZE": "2"})[:3] == ["0", "2", None]
