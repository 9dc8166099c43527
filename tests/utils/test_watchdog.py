"""The watchdog on real gloo ranks that hang in different ways, and the words it finds for what it sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from utils.peer_board import name_ranks, tell_apart
from utils.watchdog import HUNG, PHASES, SLOW, STUCK, Watchdog, collective_timeout, whereabouts

ROOT = Path(__file__).resolve().parents[2]
# One process imports torch and forks the ranks of all cases, which hang side by side.
SCRIPT = """
import ctypes, faulthandler, json, multiprocessing, os, signal, sys, time
from pathlib import Path
import torch
import torch.distributed as dist
from utils.distributed import Ranks, shared_store
from utils.watchdog import Watchdog

folder = Path(sys.argv[1])
CASES = {"sleep": 3, "stop": 2, "held": 2, "reader": 1, "slow": 1}

def reader():
    faulthandler.register(signal.SIGUSR2)
    time.sleep(60)

def live(case, rank, size):
    store = dist.FileStore(str(folder / f"{case}.store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    ranks = Ranks(rank, size, rank, size, torch.device("cpu"))
    with Watchdog(2.0, ranks, folder / case) as watchdog:
        for step in range(4):
            watchdog.beat("waiting for data", step)
            if step == 2 and case == "reader":
                multiprocessing.get_context("fork").Process(target=reader).start()
                time.sleep(60)
            watchdog.beat("step", step)
            time.sleep(0.3)  # a few rounds of the watchdog
            if case == "slow":
                time.sleep(3.0 if step == 0 else 0.3)  # the first step may compile
                watchdog.beat("verifying", step)
                time.sleep(3.0 if step == 1 else 0.3)
            if step == 2 and rank == size - 1:
                if case == "sleep": time.sleep(60)
                if case == "stop": os.kill(os.getpid(), signal.SIGSTOP)
                if case == "held": ctypes.PyDLL(None).sleep(60)  # keeps the interpreter's lock
            dist.all_reduce(torch.ones(1))
    dist.destroy_process_group()

children = {}
for case, size in CASES.items():
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(folder / f"{case}{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            code = 3
            try:
                live(case, rank, size)
                code = 0
            finally:
                os._exit(code)
        children[pid] = f"{case}{rank}"
codes, deadline = {}, time.monotonic() + 60
while children and time.monotonic() < deadline:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        codes[children.pop(pid)] = os.waitstatus_to_exitcode(status)
    if list(children.values()) == ["stop1"]:
        os.kill(next(iter(children)), signal.SIGKILL)
    time.sleep(0.05)
for pid in children:
    os.kill(pid, signal.SIGKILL)
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Runs all cases; their folder, and the exit status of each rank."""
    folder = tmp_path_factory.mktemp("hung")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    if sys.platform != "linux":
        del environment["GLOO_SOCKET_IFNAME"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def stderr(folder: Path, rank: str) -> str:
    return (folder / f"{rank}.err").read_text()


def test_a_rank_that_sleeps_is_named_by_all_and_all_end(hung: tuple[Path, dict[str, int]]) -> None:
    folder, codes = hung
    assert [codes.get(f"sleep{rank}") for rank in range(3)] == [HUNG] * 3
    for rank in range(3):
        report = (folder / "sleep" / f"stacks_rank{rank}.txt").read_text()
        assert f"rank {rank} of 3" in report
        assert "look at rank 2 first: the others wait for that\n  ranks 0-1: step 2, step, in a collective" in report
        assert "thread MainThread:\n    <string>:" in report
        assert "no progress for" in stderr(folder, f"sleep{rank}")
    assert sum("look at rank 2" in stderr(folder, f"sleep{rank}") for rank in range(3)) == 1, "aloud once"
    assert "(all_reduce)" in (folder / "sleep" / "stacks_rank0.txt").read_text()


def test_a_rank_that_is_stopped_is_named_by_the_other(hung: tuple[Path, dict[str, int]]) -> None:
    folder, codes = hung
    assert (codes.get("stop0"), codes.get("stop1")) == (HUNG, -9)
    assert "look at rank 1 first: nothing is heard from there" in stderr(folder, "stop0")
    assert "  rank 1: silent since " in stderr(folder, "stop0")


def test_a_rank_whose_interpreter_is_held_still_shows_its_stack(hung: tuple[Path, dict[str, int]]) -> None:
    folder, codes = hung
    assert (codes.get("held0"), codes.get("held1")) == (HUNG, STUCK)
    assert "look at rank 1 first: nothing is heard from there" in stderr(folder, "held0")
    told = stderr(folder, "held1")
    assert "Timeout (" in told
    assert "in live" in told


def test_a_reader_that_hangs_shows_its_stack(hung: tuple[Path, dict[str, int]]) -> None:
    folder, codes = hung
    assert codes.get("reader0") == HUNG
    told = stderr(folder, "reader0")
    assert "step 2, waiting for data, idle" in told
    assert "in reader\n" in told


def test_slow_phases_have_more_time(hung: tuple[Path, dict[str, int]]) -> None:
    folder, codes = hung
    assert codes.get("slow0") == 0, stderr(folder, "slow0")
    assert not (folder / "slow").exists()


def test_no_watchdog_without_a_timeout(tmp_path: Path) -> None:
    from utils.distributed import Ranks

    before = threading.active_count()
    with Watchdog(0, Ranks(0, 1, 0, 1, None), tmp_path) as watchdog:  # type: ignore[arg-type]
        watchdog.beat("step", 3)
        assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_collectives_wait_longer_than_any_watchdog() -> None:
    for seconds in (0, 5, 600, 86_400):
        assert collective_timeout(seconds).total_seconds() >= 600
        assert collective_timeout(seconds).total_seconds() > seconds * max(SLOW, *PHASES.values())


def called(path: str, name: str, ask: Callable[[FrameType], Any]) -> Any:
    """What `ask` says of the frame of a function of that name in that file."""
    space: dict[str, Any] = {}
    exec(compile(f"import sys\ndef {name}(ask): return ask(sys._getframe())", path, "exec"), space)
    return space[name](ask)


@pytest.mark.parametrize(
    ("path", "name", "is_busy", "place", "is_waiting"),
    [
        ("/x/torch/distributed/distributed_c10d.py", "all_reduce", True, "in a collective (all_reduce) at ", True),
        ("/x/torch/autograd/graph.py", "_engine_run_backward", True, "in the backward pass (at work) at ", False),
        ("/x/torch/autograd/graph.py", "_engine_run_backward", False, "in the backward pass (idle: it waits) at", True),
        ("/x/queue.py", "get", False, "idle in queue.py:2 get, called at ", False),
        ("/x/queue.py", "get", True, "at work in queue.py:2 get, called at ", False),
    ],
)
def test_where_a_thread_stands(path: str, name: str, is_busy: bool, place: str, is_waiting: bool) -> None:
    words, waits = called(path, name, lambda frame: whereabouts(frame, is_busy=is_busy))
    assert words.startswith(place)
    assert "tests/utils/test_watchdog.py:" in words
    assert waits is is_waiting


def line(beats: int, place: str, is_waiting: bool = False, time: float = 100.0) -> dict[str, Any]:
    return {"beats": beats, "place": place, "is_waiting": is_waiting, "time": time}


def test_which_rank_to_look_at() -> None:
    def verdict(*lines: dict[str, Any] | None) -> str:
        return tell_apart(lines, silence=5.0).splitlines()[0]

    waiting = line(7, "in a collective", True)
    assert verdict(waiting, line(7, "x", time=90.0), waiting).startswith(
        "look at rank 1 first: nothing is heard from there"
    )
    assert verdict(waiting, None, waiting).startswith("look at rank 1 first: nothing is heard from there")
    assert verdict(waiting, line(6, "x"), line(6, "y")) == "look at ranks 1-2 first: behind the others"
    assert verdict(waiting, line(7, "x"), waiting) == "look at rank 1 first: the others wait for that"
    assert verdict(waiting, line(7, "elsewhere", True), waiting).endswith("rank 1 first: elsewhere than the others")
    assert verdict(waiting, waiting).startswith("all ranks stand at the same place")


def test_names_of_ranks() -> None:
    assert [name_ranks(ranks) for ranks in ([3], [5, 0, 1, 2], [0, 2])] == ["rank 3", "ranks 0-2, 5", "ranks 0, 2"]
