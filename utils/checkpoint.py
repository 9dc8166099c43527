"""Checkpoint folders that survive a crash and load on any number of ranks. No model here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from utils.checkpoint_folder import complete_checkpoints, latest_checkpoint, partial_of, prepare, prune, put_in_place
from utils.checkpoint_manifest import (
    ADVICE,
    CheckpointError,
    DamagedError,
    FileRecord,
    read_manifest,
    size_of,
    write_manifest,
)
from utils.checkpoint_storage import HashingWriter, own_share
from utils.safe_metadata import SafeReader

__all__ = [
    "CheckpointError",
    "DamagedError",
    "complete_checkpoints",
    "empty_tensors",
    "latest_checkpoint",
    "load_checkpoint",
    "on_main",
    "own_share",
    "read_manifest",
    "save_checkpoint",
    "stored_shapes",
]

UNTOUCHED = "Earlier checkpoints are untouched"


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    progress: Mapping[str, Any],
    *,
    keep: int = 2,
    keep_best: int = 0,
    group: dist.ProcessGroup | None = None,
) -> Path:
    """Writes `folder/step_000000123` as a whole or not at all, and removes those no longer wanted. Collective.

    The tensors go to a hidden folder beside it through torch.distributed.checkpoint, every rank hashing what it writes;
    then the manifest, which names each file with its size and hash; files, manifest and folder are synced before the
    folder is renamed. A crash leaves at worst a hidden folder, which the next save removes. All ranks must see the
    same file system.

    Args:
        folder: the run's `checkpoints/`.
        step: optimizer steps done.
        tensors: by name; DTensors, and replicated tensors, which a rank may leave out where another has them
            (`own_share`). One that several have is written once.
        progress: JSON-able values that say where the run stands; given back by `load_checkpoint`. A number `score` in
            it is what `keep_best` goes by.
        keep: newest complete checkpoints to keep, >= 1.
        keep_best: of those with the highest score so many are kept beside them.
        group: gloo group of all ranks to agree over; None: the default group.

    Raises:
        CheckpointError: on every rank, where writing failed on one.
    """
    final = folder / f"step_{step:09d}"
    partial = partial_of(final)
    on_main(f"preparing {partial}", lambda: prepare(folder, partial), group)
    writer = HashingWriter(partial, has_gpu_tensors=any(tensor.is_cuda for tensor in tensors.values()))
    try:
        dcp_save(dict(tensors), storage_writer=writer, process_group=group)
        written: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(written, writer.written, group)
    except (Exception, CheckpointException) as error:  # the latter is a BaseException
        if dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        raise CheckpointError(f"{partial}: writing failed: {_reason(error)}. {UNTOUCHED}") from error
    files = {name: record for records in written for name, record in records.items()}

    def complete() -> None:
        _refuse_missing(partial, files)
        write_manifest(partial, files, step, dist.get_world_size(), torch.__version__, progress)
        put_in_place(partial, final)
        prune(final, keep, keep_best)

    on_main(f"completing {final}", complete, group)
    return final


def load_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fills `tensors` in place from a checkpoint and returns its `progress`. Collective; any number of ranks.

    Hashes are not compared here: `choose_checkpoint` does that before.

    Raises:
        CheckpointError: damage, a tensor that is missing there, or one of another shape.
    """
    manifest = read_manifest(path)
    stored = stored_shapes(path)
    problems = [f"{name}: not in the checkpoint" for name in tensors if name not in stored]
    problems += [
        f"{name}: {tuple(stored[name])} in the checkpoint, {tuple(tensor.shape)} in this run"
        for name, tensor in tensors.items()
        if name in stored and tuple(stored[name]) != tuple(tensor.shape)
    ]
    if problems:
        shown = "\n  ".join(problems[:8] + ([f"... and {len(problems) - 8} more"] if len(problems) > 8 else []))
        raise CheckpointError(
            f"{path}: does not fit this run:\n  {shown}\nResume with the config it was written with "
            "(config.json beside the checkpoints), or start a new run in another `output`"
        )
    try:
        dcp_load(dict(tensors), storage_reader=SafeReader(path))
    except (Exception, CheckpointException) as error:
        raise CheckpointError(f"{path}: reading failed: {_reason(error)}. {ADVICE}") from error
    return cast("dict[str, Any]", manifest["progress"])


def stored_shapes(path: Path) -> dict[str, torch.Size]:
    """Name -> global shape of every tensor in a checkpoint.

    Raises:
        CheckpointError: the list of tensors cannot be read.
    """
    return {name: entry.size for name, entry in _entries(path).items()}


def empty_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """CPU tensors, shaped as stored, for all names with this prefix: what an optimizer's state is loaded into.

    Raises:
        CheckpointError: the list of tensors cannot be read.
    """
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in _entries(path).items()
        if name.startswith(prefix)
    }


def on_main(what: str, action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
    """Runs `action` on rank 0 while the others wait; its failure is raised on all ranks: none waits for ever.

    Raises:
        CheckpointError: on every rank; says what was being done and why it failed.
    """
    failure: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            action()
        except Exception as error:
            failure = [str(error) or type(error).__name__]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(failure, src=0, group=group)
    if failure[0] is not None:
        raise CheckpointError(f"{what}: {failure[0]}. {UNTOUCHED}")


def _entries(path: Path) -> dict[str, TensorStorageMetadata]:
    try:
        metadata: Metadata = SafeReader(path).read_metadata()
        entries = metadata.state_dict_metadata.items()
        return {name: entry for name, entry in entries if isinstance(entry, TensorStorageMetadata)}
    except Exception as error:
        raise CheckpointError(f"{path}: its list of tensors cannot be read: {error}. {ADVICE}") from error


def _refuse_missing(partial: Path, files: Mapping[str, FileRecord]) -> None:
    """What other ranks wrote must be here too, as long as they say."""
    for name, record in files.items():
        size = size_of(partial / name)
        if size is None:
            raise OSError(f"{name} is not here: all ranks must write to one shared file system")
        if size != record.size:
            raise OSError(f"{name} has {size} bytes here, {record.size} were written")


def _reason(error: BaseException) -> str:
    """The causes of a failure on some ranks; torch's own text is the stack of each of them."""
    if not isinstance(error, CheckpointException):
        return str(error) or type(error).__name__
    failures = error.failures.items()
    return "; ".join(f"rank {rank}: {type(cause).__name__}: {cause}" for rank, (cause, _) in sorted(failures))
