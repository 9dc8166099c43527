"""Where a run came from, written beside its results: command, and the fingerprint of all it is made of. Read-only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.fingerprint import changes, device_name
from training.run import Run
from utils.distributed import available_cores
from utils.files import write_text_whole
from utils.image_format_file import write_image_format

_REMEMBERED = 100  # continuations with a change; a run that is restarted for ever must not fill its run.json


def write_provenance(run: Run, arguments: Sequence[str]) -> None:
    """Writes config.json (the resolved config), image_format.json (how pixels become numbers) and run.json (everything
    else that made the run) on the main rank.

    A resumed run adds to run.json what had changed since the file was written: "changes", a list of the command that
    went on and its differences.
    """
    if not run.ranks.is_main:
        return
    folder = Path(run.config.output or "")
    folder.mkdir(parents=True, exist_ok=True)
    described = describe_run(run, arguments)
    described["changes"] = _changes_so_far(folder, run, described["command"]) if run.config.resume else []
    write_text_whole(json.dumps(run.config.to_dict(), indent=1) + "\n", folder / "config.json")
    write_image_format(folder, run.source.image_format, run.config.normalization)
    write_text_whole(json.dumps(described, indent=1) + "\n", folder / "run.json")


def describe_run(run: Run, arguments: Sequence[str]) -> dict[str, Any]:
    """JSON-able facts about a run; the config that its fingerprint holds is left to config.json."""
    ranks = run.ranks
    launcher = f"torchrun --nproc_per_node={ranks.local_world_size}" if ranks.world_size > 1 else "python"
    threads = torch.get_num_threads()
    return {
        "command": shlex.join([*launcher.split(), "train.py", *arguments]),
        "commit": run.fingerprint.get("code", {}).get("commit"),
        "ranks": ranks.world_size,
        "device": str(ranks.device.type),
        "hardware": f"{device_name(ranks.device)}, {available_cores()} cores, {threads} threads a rank",
        "backbone_parameters": sum(parameter.numel() for parameter in run.backbone.parameters()),
        "fingerprint": {group: values for group, values in run.fingerprint.items() if group != "config"},
    }


def _changes_so_far(folder: Path, run: Run, command: str) -> list[dict[str, Any]]:
    """What an older run.json remembers, and what is other now; nothing where there is none to read."""
    try:
        before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        remembered = list(before.get("changes", []))
        found = changes({**before.get("fingerprint", {}), "config": config}, run.fingerprint)
    except (OSError, ValueError, AttributeError, TypeError):
        return []
    if found:
        remembered.append({"command": command, "changed": found})
    return remembered[-_REMEMBERED:]
