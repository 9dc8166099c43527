"""What a run has left behind: its losses, weights and checkpoints, read independently of the run and compared."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from tests.kill_campaign.lives import CampaignError
from utils.checkpoint import complete_checkpoints, empty_tensors, read_manifest
from utils.checkpoint_manifest import check_file, file_records
from utils.safe_metadata import SafeReader

_RESUMED = re.compile(r"resumed from \S+: (\d+) steps done")


@dataclass(frozen=True)
class Remains:
    """All that must not depend on how often a run was interrupted.

    Attributes:
        steps: (step, epoch, loss, lr, grad_norm) of every line of metrics.jsonl, in order.
        model: model.pt.
        checkpoint: every tensor of the last checkpoint: weights, momentum, prototypes.
    """

    steps: list[tuple[float, ...]]
    model: dict[str, Tensor]
    checkpoint: dict[str, Tensor]


def remains_of(output: Path) -> Remains:
    """Reads the folder of a run that has ended."""
    path = complete_checkpoints(output / "checkpoints")[-1]
    tensors = empty_tensors(path, "")
    dcp_load(dict(tensors), storage_reader=SafeReader(path), no_dist=True)
    return Remains(logged_steps(output), torch.load(output / "model.pt", weights_only=True), tensors)


def logged_steps(output: Path) -> list[tuple[float, ...]]:
    """The training lines of metrics.jsonl; a torn last line is left out."""
    path = output / "metrics.jsonl"
    steps = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["kind"] == "train":
            steps.append(tuple(record[name] for name in ("step", "epoch", "loss", "lr", "grad_norm")))
    return steps


def differences(whole: Remains, other: Remains, total_steps: int) -> list[str]:
    """What differs in a single bit; empty where all is equal."""
    found = []
    if [step[0] for step in whole.steps] != list(range(1, total_steps + 1)):
        found.append("the run left alone has not logged each step once")
    if whole.steps != other.steps:
        pairs = zip(whole.steps, other.steps, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), "their number")
        found.append(f"the logged steps differ first in {first}")
    for kind, ours, theirs in (("model.pt", whole.model, other.model), ("", whole.checkpoint, other.checkpoint)):
        if ours.keys() != theirs.keys():
            found.append(f"{kind} other names: {sorted(ours.keys() ^ theirs.keys())[:4]}")
        found += [f"{kind} {name}" for name in ours.keys() & theirs.keys() if not _same_bits(ours[name], theirs[name])]
    return found


def check_checkpoints(output: Path) -> None:
    """Everything that counts as a checkpoint is whole: each file has the size and hash that its manifest names.

    Raises:
        CheckpointError, CampaignError: one is not.
    """
    for path in complete_checkpoints(output / "checkpoints"):
        for name, record in file_records(path, read_manifest(path)).items():
            problem = check_file(path, name, record)
            if record.sha256 is None or problem is not None:
                raise CampaignError(f"{path}: {problem or 'no hash'}")
    aside = list((output / "checkpoints").glob("damaged_*"))
    if aside:
        raise CampaignError(f"{aside[0]}: a sound checkpoint was taken for a damaged one")


def steps_lost(logged: int, console: str) -> int | None:
    """How many logged steps a life has taken again; None where it was killed before it said where it went on."""
    resumed = _RESUMED.search(console)
    if resumed is not None:
        return logged - int(resumed[1])
    return logged if "resume: no checkpoint in" in console else None


def _same_bits(left: Tensor, right: Tensor) -> bool:
    same_kind = left.dtype == right.dtype and left.shape == right.shape
    return same_kind and left.contiguous().numpy().tobytes() == right.contiguous().numpy().tobytes()
