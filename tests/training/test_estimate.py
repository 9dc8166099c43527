"""`--check`: its sums by hand and against the rules of the loop, its steps on real ranks, and what it prints."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.bin_files import write_bin
from tests.eval.faces import jpeg_pairs, memory_pairs
from tests.ranks import RankPool
from tests.records import make_record_set
from tests.training.runs import make_run, weights_of
from training import estimate
from training.check import check_run
from training.estimate import (
    Steps,
    all_reduce_model,
    children_bytes,
    count_saves,
    count_verifications,
    estimate_run,
    measure_all_reduce,
    measure_steps,
    traffic,
)
from training.preflight import inspect_run
from training.resources import Sizes
from training.scored_data import PairSets
from utils.config import Config
from utils.schedule import Plan

PLANS = [Plan(10, 3, 8), Plan(7, 5, 8, 2), Plan(5, 4, 8, 3), Plan(1, 1, 8), Plan(1, 6, 8, 4), Plan(100, 2, 8)]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("interval", [1, 3, 10, 1000])
def test_saves_and_verifications_are_counted_as_the_loop_does_them(plan: Plan, interval: int) -> None:
    done = range(1, plan.total_steps + 1)
    assert count_saves(plan, interval) == sum(step % interval == 0 or plan.ends_epoch(step) for step in done)
    assert count_verifications(plan, interval) == 1 + sum(
        step % interval == 0 or step == plan.total_steps for step in done
    )
    assert count_verifications(plan, 0) == 1 + sum(plan.ends_epoch(step) for step in done)


def test_the_typical_step_leaves_the_first_out() -> None:
    assert Steps(9.0, [1.0, 5.0, 2.0], 0.0, 8, 0.0).typical == 2.0
    assert Steps(9.0, [], 0.0, 8, 0.0).typical == 9.0


def test_an_all_reduce_is_latency_and_speed() -> None:
    assert all_reduce_model([(256, 0.001), (1 << 20, 0.1), (1000, 0.101)]) == pytest.approx((0.001, 10_000))


def whole_run(**keys: Any) -> tuple[float, float, float]:
    run = make_run(**keys)  # 48 images in batches of 6, 3 epochs: 24 steps
    run.scored = PairSets([memory_pairs(4)])
    steps = Steps(5.0, [1.0, 2.0, 3.0], 0.1, 6, 1.0)
    sizes = Sizes(backbone=1000, prototypes=2000, batch=0, states=1)
    parts = estimate_run(run, steps, 10.0, sizes, write_speed=700.0)
    assert parts.total == parts.training + parts.verification + parts.saving
    return parts.training, parts.verification, parts.saving


def test_the_estimate_of_a_run_by_hand(ranks: RankPool) -> None:
    # verifications: untrained, 10, 20, 24; checkpoints: 8, 10, 16, 20, 24 of 6,000 bytes and a model of 1,000
    (found,) = ranks.run(1, whole_run_of, {"verbose": 10, "checkpoint_interval": 10, "async_save": False})
    assert found == pytest.approx((5 + 23 * 2, 4 * 10, 5 * 10))
    (found,) = ranks.run(1, whole_run_of, {"verbose": 10, "checkpoint_interval": 10, "async_save": True})
    assert found[2] == pytest.approx(5 * 7000 / 2e9)


def whole_run_of(keys: dict[str, Any]) -> tuple[float, float, float]:
    return whole_run(**keys)


def steps_on_ranks() -> dict[str, Any]:
    run = make_run()
    estimate.STEPS_SECONDS = 0.0 if run.ranks.rank == 0 else 1e9  # only the main rank's clock counts
    before = weights_of(run)
    calls: list[str] = []
    steps = measure_steps(run, lambda: calls.append("at the end"))
    after = weights_of(run)
    reduced = measure_all_reduce(run.ranks)
    return {
        "others": len(steps.others), "images": steps.images, "loss": steps.loss, "calls": calls,
        "moved": any((before[name] != after[name]).any() for name in before),
        "reduced": [size for size, seconds in reduced if seconds > 0], "traffic": traffic(run),
    }  # fmt: skip


@pytest.mark.parametrize("world_size", [1, 2])
def test_two_real_steps_on_ranks(ranks: RankPool, world_size: int) -> None:
    found = ranks.run(world_size, steps_on_ranks)
    assert [own["others"] for own in found] == [1] * world_size
    assert [own["images"] for own in found] == [6 * world_size] * world_size
    assert all(own["loss"] == found[0]["loss"] for own in found)
    assert all(own["moved"] for own in found)
    assert [own["calls"] for own in found] == [["at the end"]] * world_size
    several = world_size > 1
    assert found[0]["reduced"] == (list(estimate.REDUCED) if several else [])
    parameters = 3 * 4 * 9 + 4 + 36 * 6 + 6  # of PlainNet
    head = 12 * 4 * (2 * 6 + 8)  # 12 images of width 6
    assert found[0]["traffic"] == ((4 * parameters, head, 2 + 5 + 1) if several else (0, 0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_are_counted_with_their_memory() -> None:
    number, size = children_bytes()
    program = "block = bytes([1]) * (64 << 20); print('ready', flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        found = children_bytes()
        child.communicate("end\n")
    assert found[0] == number + 1
    assert found[1] - size > 64 << 20
    assert children_bytes()[0] == number


def check(rec: str, output: str, port: int, keys: dict[str, Any]) -> tuple[int, str, str]:
    """`--check` in this process, as one of the ranks that a launcher has started."""
    world_size = int(os.environ["WORLD_SIZE"])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(world_size))
    config = Config(
        **{"rec": rec, "val_targets": ("pairs",), "network": "tiny", "embedding_size": 8, "batch_size": 2,
           "output": output, "threads": 1, "num_workers": 0, "num_epoch": 2, **keys}
    )  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            inputs = inspect_run(config, device="cpu", world_size=world_size, is_thorough=True)
            assert inputs.problems == []
            status = check_run(config, inputs, "cpu", "a small run")
    finally:
        for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_record_set(tmp_path_factory.mktemp("data") / "set", [3, 5], 112, 112)
    write_bin(folder / "pairs.bin", *jpeg_pairs(4))
    return str(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_the_check_tells(ranks: RankPool, data: str, tmp_path: Path, world_size: int) -> None:
    found = ranks.run(world_size, check, data, str(tmp_path / "run"), free_port(), {}, group=False)
    assert [status for status, _, _ in found] == [0] * world_size
    assert [text for _, text, _ in found[1:]] == [""] * (world_size - 1), "only the main rank speaks"
    told = [line[14:] for line in found[0][1].splitlines()]
    headings = [line[:14].strip() for line in found[0][1].splitlines()]
    order = [
        "run",
        "data",
        "verification",
        "output",
        "limits",
        "device",
        "interconnect",
        "steps",
        "memory",
        "whole run",
    ]
    shown = [heading for heading in order if world_size > 1 or heading != "interconnect"]
    assert list(dict.fromkeys(headings))[:-1] == shown
    assert told[0] == "a small run"
    assert f"{world_size} rank(s), {world_size} here, each on CPU" in told[headings.index("device")]
    memory = told[headings.index("memory")]
    assert all(f"rank {rank} " in memory for rank in range(world_size))
    total = 2 * 8 // (2 * world_size)
    whole = told[headings.index("whole run")]
    assert f": {total} steps of 2 epochs" in whole
    assert "2 verifications of 8 images" in whole
    assert "2 checkpoints" in whole
    assert found[0][1].endswith("no problem found; nothing was left behind\n")
    assert list(tmp_path.iterdir()) == []


def out_of_memory(data: str, output: str, port: int, keys: dict[str, Any]) -> tuple[int, str, str]:
    """The same where the second step finds no memory."""
    from training import estimate as module

    kept = module.train_step

    def failing(run: Any, batches: Any, step: int) -> Any:
        if step == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return kept(run, batches, step)

    module.train_step = failing
    try:
        return check(data, output, port, keys)
    finally:
        module.train_step = kept
        torch.distributed.destroy_process_group()


def test_steps_that_do_not_fit(ranks: RankPool, data: str, tmp_path: Path) -> None:
    arguments = (data, str(tmp_path / "run"), free_port(), {"embedding_size": 512})
    ((status, _, error),) = ranks.run(1, out_of_memory, *arguments, group=False)
    assert status == 2
    assert error.startswith("rank 0: memory: 2 steps do not fit; weights, states and gradients alone take ")
    assert "what needs less: a smaller batch_size, gradient_checkpointing=True, more ranks\n" in error
    assert "(OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB)" in error
    many = {"rec": "synthetic:100000:100000", "val_targets": ()}
    ((_, _, error),) = ranks.run(1, out_of_memory, data, str(tmp_path / "run"), free_port(), many, group=False)
    assert "what needs less: sample_rate=0.1, a smaller batch_size" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_tells_all_problems_at_once(data: str, tmp_path: Path) -> None:
    config = tmp_path / "small.py"
    config.write_text(f"from easydict import EasyDict as edict\nconfig = edict(rec={data!r}, network='tiny')\n")
    command = [sys.executable, "train.py", str(config), "--check", "--device", "cpu", f"output={tmp_path / 'run'}"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*command, "num_classes=3", "val_targets=('gone',)"], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["small.py"]
