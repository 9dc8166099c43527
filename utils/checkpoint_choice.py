"""Which checkpoint a run resumes from: the newest that is sound, found by all ranks together. No tensors here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from utils.checkpoint import on_main
from utils.checkpoint_folder import all_checkpoints, restore_replaced, set_aside
from utils.checkpoint_manifest import CheckpointError, DamagedError, FileRecord, check_file, file_records, read_manifest
from utils.distributed import broadcast_object, gather_objects


@dataclass(frozen=True)
class Choice:
    """Where to resume from.

    Attributes:
        path: the newest sound checkpoint; None where there is none of any kind.
        manifest: its manifest.
        lines: for the log, one for each damaged checkpoint that was passed over.
    """

    path: Path | None
    manifest: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def choose_checkpoint(folder: Path, rank: int, world_size: int) -> Choice:
    """The newest checkpoint whose files all have the size and the hash they were written with; collective.

    The ranks share the reading; what one of them finds counts for all. Damaged ones that are newer are put aside as
    `damaged_step_...`: they are neither deleted nor counted. Nothing is renamed unless a sound one is found.

    Args:
        folder: the run's `checkpoints/`, in a file system that all ranks see.
        rank, world_size: this process among all.

    Raises:
        CheckpointError: on all ranks: all are damaged, the newest is of a later version, or a rank does not see it.
    """
    names: list[str] = []
    if rank == 0 and folder.is_dir():
        restore_replaced(folder)
        names = [path.name for path in reversed(all_checkpoints(folder))]
    # The main rank chooses: ranks that saw different checkpoints would wait for each other in different collectives.
    names = broadcast_object(names)
    damaged: dict[str, str] = {}
    for name in names:
        manifest, reason = _examine(folder / name, rank, world_size)
        if reason is not None:
            damaged[name] = reason
            continue
        lines = []
        for other, what in damaged.items():
            on_main(f"renaming {folder / other}", partial(set_aside, folder / other))
            lines.append(f"resume: {other} is damaged ({what}): put aside as damaged_{other}, {name} is used instead")
        return Choice(folder / name, manifest, lines)
    if damaged:
        found = "\n  ".join(f"{name}: {reason}" for name, reason in damaged.items())
        raise CheckpointError(
            f"{folder}: all checkpoints are damaged:\n  {found}\nNothing was changed. Restore one of them from a "
            "backup, or start a new run in another `output`, with init_from=.../model.pt if that is sound"
        )
    return Choice(None)


def _examine(path: Path, rank: int, world_size: int) -> tuple[dict[str, Any], str | None]:
    """A checkpoint's manifest and what is wrong with it, the same on all ranks."""
    manifest: dict[str, Any] = {}
    damage: str | None = None
    refusal: str | None = None
    if rank == 0:
        try:
            manifest = read_manifest(path)
        except DamagedError as error:
            damage = error.reason
        except CheckpointError as error:
            refusal = str(error)
    manifest, damage, refusal = broadcast_object((manifest, damage, refusal))
    if refusal is not None:
        raise CheckpointError(refusal)
    blind = [other for other, sees in enumerate(gather_objects(path.is_dir())) if not sees]
    if blind:
        raise CheckpointError(f"{path}: not visible to ranks {blind}: all ranks need one shared file system")
    if damage is not None:
        return manifest, damage
    found = None
    for name, record in _share(file_records(path, manifest), rank, world_size).items():
        found = found or check_file(path, name, record)
    return manifest, next((text for text in gather_objects(found) if text is not None), None)


def _share(files: dict[str, FileRecord], rank: int, world_size: int) -> dict[str, FileRecord]:
    """The files that `rank` reads: largest first, each to the rank with the least so far."""
    load = [0] * world_size
    own = {}
    for name in sorted(files, key=lambda name: (-files[name].size, name)):
        reader = load.index(min(load))
        load[reader] += files[name].size
        if reader == rank:
            own[name] = files[name]
    return own
