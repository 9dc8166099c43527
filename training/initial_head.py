"""Prototypes of another run as the beginning of this one. Which class is which is training/class_match.py's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from losses.sharding import as_global, class_block
from training.class_match import ClassMatch, class_names, match_classes
from training.run import Run
from utils.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, read_manifest, stored_shapes
from utils.checkpoint_manifest import MANIFEST, check_file, file_records
from utils.distributed import broadcast_object, gather_objects

_WEIGHT, _HEAD = "fc/weight", "fc/head."
_ROWS = 8192  # sent at a time; 16 MiB of 512 floats


def load_initial_head(run: Run) -> tuple[dict[str, Any] | None, list[str]]:
    """Starts prototypes, and the head's own numbers that are not per class, from `config.init_head_from`; collective.

    Momentum and the like begin at zero. Each rank reads an equal part of the rows there, which it passes on in blocks:
    beside the run's own, a rank needs memory for its part (classes there / ranks rows, on the CPU), for one file of
    the checkpoint while it is read, and 16 MiB.

    Returns:
        How many classes were taken, are new, were not used: for JSON (None where nothing was asked for), and lines for
        the log.

    Raises:
        CheckpointError: on all ranks: no checkpoint there, a damaged one, another embedding size or number of
            sub-centres, or nothing that says which class is which.
    """
    given = run.config.init_head_from
    if given is None:
        return None, []
    path, match, head, head_line = _on_all(run, Path(given))
    _refuse_damaged(run, path)
    start, stop = class_block(match.num_there, run.ranks.rank, run.ranks.world_size)
    part = torch.empty(stop - start, *run.fc.weight.shape[1:], dtype=torch.float32)
    tensors = {name: torch.empty_like(run.fc.sharded_state_dict()[name.removeprefix("fc/")]).cpu() for name in head}
    load_checkpoint(path, {_WEIGHT: as_global(part, match.num_there, run.fc.collectives), **tensors})
    _take_rows(run, part, match)
    own = run.fc.head.state_dict()
    run.fc.head.load_state_dict({**own, **{name.removeprefix(_HEAD): tensor for name, tensor in tensors.items()}})
    facts = {"path": str(path), **match.to_dict(), "of_the_head": [name.removeprefix(_HEAD) for name in head]}
    return facts, [f"init_head_from: {match.describe()}; from {path}", *([head_line] if head_line else [])]


def _on_all(run: Run, given: Path) -> tuple[Path, ClassMatch, list[str], str]:
    """What `_plan` finds on the main rank, or its error, on every rank."""
    plan, problem = None, None
    if run.ranks.is_main:
        try:
            plan = _plan(run, given)
        except CheckpointError as error:
            problem = str(error)
    plan, problem = broadcast_object((plan, problem))
    if plan is None:
        raise CheckpointError(problem)
    path: Path = plan[0]
    blind = [rank for rank, sees in enumerate(gather_objects(path.is_dir())) if not sees]
    if blind:
        raise CheckpointError(f"{path}: not visible to ranks {blind}: all ranks need one shared file system")
    return plan


def _plan(run: Run, given: Path) -> tuple[Path, ClassMatch, list[str], str]:
    """The checkpoint, the classes, the head's tensors to take, and a line about those that are not taken."""
    is_checkpoint = (given / MANIFEST).is_file()
    path = given if is_checkpoint else latest_checkpoint(given / "checkpoints")
    if path is None:
        raise CheckpointError(
            f"init_head_from: {given} is neither a run folder with a complete checkpoint nor a checkpoint folder "
            f"(checkpoints/step_...). Prototypes are in checkpoints only, not in model.pt"
        )
    config = read_manifest(path)["progress"].get("config", {})
    shapes = {name: tuple(shape) for name, shape in stored_shapes(path).items()}
    _refuse_unfitting(run, path, shapes.get(_WEIGHT))
    folder = path.absolute().parent.parent
    num_there = shapes[_WEIGHT][0]
    match = match_classes(class_names(run), run.fc.num_classes, folder, num_there, run.config.init_class_map)
    own = {f"{_HEAD}{name}": tuple(value.shape) for name, value in run.fc.head.state_dict().items()}
    stored = [name for name in shapes if name.startswith(_HEAD)]
    if config.get("head") != run.config.head:
        line = f"init_head_from: head {config.get('head')!r} there, {run.config.head!r} here: only prototypes are taken"
        return path, match, [], line if stored or own else ""
    taken = [name for name in stored if shapes[name] == own.get(name) and own[name][:1] != (run.fc.num_classes,)]
    left = sorted(name.removeprefix(_HEAD) for name in own if name not in taken)
    line = f"init_head_from: of the head, left as initialised (per class, or of another shape): {', '.join(left)}"
    return path, match, taken, line if left else ""


def _refuse_unfitting(run: Run, path: Path, found: tuple[int, ...] | None) -> None:
    """Raises CheckpointError unless rows of that shape can be prototypes here."""
    own = tuple(run.fc.weight.shape[1:])
    if found is None or len(found) not in (2, 3):
        raise CheckpointError(f"{path}: it holds no prototypes; was it written by another program?")
    size, centers = found[-1], found[1] if len(found) == 3 else 1
    size_here, centers_here = own[-1], own[0] if len(own) == 2 else 1
    if size != size_here:
        raise CheckpointError(
            f"init_head_from: prototypes in {path} are {found}, embedding_size {size}; here it is {size_here}. Set "
            f"embedding_size={size}, or leave init_head_from out"
        )
    if centers != centers_here:
        raise CheckpointError(
            f"init_head_from: prototypes in {path} are {found}, {centers} per class; the head here keeps "
            f"{centers_here}. Set head_options.sub_centers={centers}, or leave init_head_from out"
        )


def _refuse_damaged(run: Run, path: Path) -> None:
    """Compares all files with their hashes, each rank a part of them; collective."""
    records = file_records(path, read_manifest(path))
    own = sorted(records)[run.ranks.rank :: run.ranks.world_size]
    damage = [check_file(path, name, records[name]) for name in own]
    found = [text for texts in gather_objects(damage) for text in texts if text]
    if found:
        raise CheckpointError(f"init_head_from: {path} is damaged: {found[0]}. Name an earlier checkpoint of that run")


def _take_rows(run: Run, part: Tensor, match: ClassMatch) -> None:
    """Puts the rows of all ranks' parts where this rank's classes want them."""
    first, last = run.fc.class_range
    wanted = match.there[first:last]
    weight = run.fc.weight.detach()
    for owner in range(run.ranks.world_size):
        start, stop = class_block(match.num_there, owner, run.ranks.world_size)
        for low in range(start, stop, _ROWS):
            high = min(low + _ROWS, stop)
            rows = (
                part[low - start : high - start]
                if owner == run.ranks.rank
                else part.new_empty(high - low, *part.shape[1:])
            )
            if run.ranks.world_size > 1:
                dist.broadcast(rows, src=owner)
            here = np.flatnonzero((wanted >= low) & (wanted < high))
            if len(here):
                values = rows[torch.from_numpy(wanted[here] - low)]
                weight[torch.from_numpy(here).to(weight.device)] = values.to(weight)
