"""Starting ranks, and agreeing over them. Processes of their own where the environment matters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.ranks import RankPool
from utils.distributed import agree_max, agree_sum, average_buffers, broadcast_object, gather_objects

ROOT = Path(__file__).resolve().parents[2]


def start_alone(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process without a launcher's variables, plus those given."""
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    clean = {name: value for name, value in os.environ.items() if name not in launcher}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_single_process_gets_a_group_without_a_port() -> None:
    code = """
import torch, torch.distributed as dist
from utils.distributed import RankError, start_ranks, stop_ranks
ranks = start_ranks("cpu", threads=3)
assert (ranks.rank, ranks.world_size, ranks.device.type, ranks.is_main) == (0, 1, "cpu", True), ranks
assert torch.get_num_threads() == 3
dist.all_reduce(torch.ones(1))
try:
    start_ranks("cpu")
except RankError as error:
    assert "already has a process group" in str(error)
else:
    raise SystemExit("a second group started")
stop_ranks()
stop_ranks()
assert not dist.is_initialized()
"""
    done = start_alone(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("device", "environment", "text"),
    [
        ("cpu", {"RANK": "0", "WORLD_SIZE": "2"}, "not LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ("tpu", {}, "device 'tpu' is not known here"),
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, "torch sees no GPU"),
    ],
)
def test_refusals_say_what_to_do(device: str, environment: dict[str, str], text: str) -> None:
    done = start_alone(f"from utils.distributed import start_ranks; start_ranks({device!r})", **environment)
    assert done.returncode == 1
    assert "RankError" in done.stderr
    assert text in done.stderr


def test_every_kind_of_stop_is_remembered_and_only_a_second_ctrl_c_ends_the_process() -> None:
    code = """
import os, signal, time
from utils import distributed
me = os.getpid()
for kind in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
    stop = distributed.StopSignal()
    assert not stop.requested
    os.kill(me, kind)
    assert stop.requested and stop.name == kind.name
os.kill(me, signal.SIGINT)  # a launcher passing on what the terminal has sent already
distributed.SAME_REQUEST_SECONDS = -1.0
os.kill(me, signal.SIGUSR1)
os.kill(me, signal.SIGTERM)  # time is up, and it may be saving
os.environ["TORCHELASTIC_RUN_ID"] = "1"
launched = distributed.StopSignal()
assert not launched.requested
if os.fork() == 0:  # this child has another parent than its launcher
    os._exit(launched.requested and launched.name == "the end of its launcher")
assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
stop = distributed.StopSignal()
os.kill(me, signal.SIGINT)
print("so far", flush=True)
stop._previous[signal.SIGINT] = signal.SIG_DFL
os.kill(me, signal.SIGINT)
time.sleep(30)
"""
    done = start_alone(code)
    assert (done.returncode, done.stdout) == (-2, "so far\n"), done.stderr


def agree() -> tuple[list[float], list[float], object, list[object]]:
    rank = dist.get_rank()
    values = torch.tensor([float(rank), 1.0])
    return (
        agree_sum(values.clone()).tolist(),
        agree_max(values.clone()).tolist(),
        broadcast_object({"from": rank}),
        gather_objects(rank),
    )


@pytest.mark.parametrize("world_size", [1, 3])
def test_agreement(ranks: RankPool, world_size: int) -> None:
    last = world_size - 1
    expected = (
        [float(sum(range(world_size))), float(world_size)],
        [float(last), 1.0],
        {"from": 0},
        list(range(world_size)),
    )
    assert ranks.run(world_size, agree) == [expected] * world_size


def running_statistics() -> tuple[list[float], int]:
    norm = nn.BatchNorm1d(2)
    norm(torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (dist.get_rank() + 1))
    average_buffers(norm)
    assert norm.running_mean is not None
    assert norm.num_batches_tracked is not None
    return norm.running_mean.tolist(), int(norm.num_batches_tracked)


def test_replicas_share_the_mean_of_their_running_statistics(ranks: RankPool) -> None:
    # Means of the ranks are (2, 3) and (4, 6), momentum .1.
    first, second = ranks.run(2, running_statistics)
    assert first == second
    assert first[0] == pytest.approx([0.3, 0.45])
    assert first[1] == 1
