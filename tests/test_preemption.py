"""Runs under torchrun whose ranks are killed and whose launcher is told to stop: they end like undisturbed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.test_train import ENVIRONMENT, ROOT

CONFIG = """
from easydict import EasyDict as edict
config = edict()
config.rec = "synthetic:7:48"
config.network, config.embedding_size = "tiny", 16
config.head, config.head_options = "cosface", {"scale": 16.0, "margin": 0.1}
config.batch_size, config.num_epoch, config.lr, config.dropout = 4, 8, 0.05, 0.2
config.verbose, config.frequent, config.num_workers, config.threads = 0, 1, 1, 1
config.checkpoint_interval = 1  # running statistics are averaged at each, and a stop adds one
"""
HANDLED = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def command(config: Path, *arguments: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=2", HANDLED]
    return [sys.executable, *launcher, "train.py", str(config), *arguments]


def last_rank(launcher: int) -> int:
    """The process of a launcher's last rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return max(int(child) for child in children)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "model.pt", weights_only=True)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_killed_restarted_stopped_and_resumed_is_as_if_nothing_had_been(tmp_path: Path) -> None:
    config = tmp_path / "small_run.py"
    config.write_text(CONFIG)
    whole, folder = tmp_path / "whole", tmp_path / "run"
    done = subprocess.run(
        command(config, f"output={whole}"), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr

    process = subprocess.Popen(
        command(config, f"output={folder}"),
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        if line.startswith("step 5/") and not any(before.startswith("step 5/") for before in seen):
            os.kill(last_rank(process.pid), signal.SIGKILL)
        if line.startswith("step 20/"):
            process.send_signal(signal.SIGUSR1)
        seen.append(line)
    text = "".join(seen)
    assert process.wait(timeout=100) == 1, text  # torchrun's own, whatever its ranks end with
    assert text.count("resumed from") == 1, text  # once after the kill, without being told; not after the stop
    assert "stopped by SIGUSR1 after step" in text
    assert "done: " not in text

    resumed = subprocess.run(
        command(config, f"output={folder}", "resume=True"),
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    one, other = weights(folder), weights(whole)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    lines = [(path / "metrics.jsonl").read_text().count('"kind": "train"') for path in (folder, whole)]
    assert lines == [48, 48], "every step is logged once"
