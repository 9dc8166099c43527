"""Where a run came from: command, commit, versions, machine, data. Read-only."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.build import Run
from utils.distributed import available_cores
from utils.files import write_text_whole

ROOT = Path(__file__).resolve().parent.parent


def write_provenance(run: Run, arguments: Sequence[str]) -> None:
    """Writes config.json (the resolved config) and run.json (everything else that made the run) on the main rank."""
    if not run.ranks.is_main:
        return
    folder = Path(run.config.output or "")
    folder.mkdir(parents=True, exist_ok=True)
    write_text_whole(json.dumps(run.config.to_dict(), indent=1) + "\n", folder / "config.json")
    write_text_whole(json.dumps(describe_run(run, arguments), indent=1) + "\n", folder / "run.json")


def describe_run(run: Run, arguments: Sequence[str]) -> dict[str, Any]:
    """JSON-able facts about a run that are not in its config."""
    ranks = run.ranks
    device = (
        torch.cuda.get_device_name(ranks.device)
        if ranks.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    launcher = f"torchrun --nproc_per_node={ranks.local_world_size}" if ranks.world_size > 1 else "python"
    return {
        "command": shlex.join([*launcher.split(), "train.py", *arguments]),
        "commit": git_commit(),
        "ranks": ranks.world_size,
        "device": str(ranks.device.type),
        "hardware": f"{device}, {available_cores()} cores, {torch.get_num_threads()} threads a rank",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "platform": platform.platform(),
        "data": run.source.describe(),
        "verification": {pairs.name: pairs.data_sha256 for pairs in run.pair_sets},
        "backbone_parameters": sum(parameter.numel() for parameter in run.backbone.parameters()),
    }


def git_commit() -> str | None:
    """The commit of this code, with `+changes` where files differ from it; None outside a clone."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
