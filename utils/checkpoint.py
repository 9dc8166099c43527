"""Checkpoint folders that survive a crash and load on any number of ranks. No model here."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from utils.distributed import broadcast_object
from utils.files import sync_folder, write_text_whole

MANIFEST = "manifest.json"
METADATA = ".metadata"  # written by torch.distributed.checkpoint, last of its files
FORMAT = 1
_COMPLETE = re.compile(r"step_(\d{9})")
_LEFTOVER = ".partial"
ADVICE = "Delete this folder to resume from an earlier one"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read: which one, why, and what to do."""


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Writes `folder/step_000000123` as a whole or not at all, and removes all but the newest `keep`. Collective.

    The tensors go to a hidden folder beside it through torch.distributed.checkpoint (every rank writes its part, a
    replicated tensor is written once); then the manifest, which names each file and its size; then all of it is synced
    and renamed. A crash leaves at worst a hidden folder, which the next save removes. All ranks must see the
    same file system.

    Args:
        folder: the run's `checkpoints/`.
        step: optimizer steps done.
        tensors: replicated tensors (equal on all ranks) and DTensors, by name.
        progress: JSON-able values that say where the run stands; given back by `load_checkpoint`.
        keep: complete checkpoints to keep, >= 1.

    Raises:
        CheckpointError: on every rank, where writing failed on one.
    """
    final = folder / f"step_{step:09d}"
    partial = folder / f".{final.name}{_LEFTOVER}"
    on_main(f"preparing {partial}", lambda: _prepare(folder, partial))
    # Without a GPU tensor among them no rank may touch a GPU: the default writer opens one wherever torch sees any.
    copies_ahead = 10_000_000 if any(tensor.is_cuda for tensor in tensors.values()) else 0
    try:
        dcp_save(dict(tensors), storage_writer=FileSystemWriter(partial, per_thread_copy_ahead=copies_ahead))
    except (Exception, CheckpointException) as error:  # the latter is a BaseException
        raise CheckpointError(f"{partial}: writing failed: {error}. Earlier checkpoints are untouched") from error
    on_main(f"completing {final}", lambda: _complete(partial, final, step, progress, keep))
    return final


def load_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fills `tensors` in place from a checkpoint and returns its `progress`. Collective; any number of ranks.

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
        dcp_load(dict(tensors), checkpoint_id=path)
    except (Exception, CheckpointException) as error:
        raise CheckpointError(f"{path}: reading failed: {error}. {ADVICE}") from error
    return cast("dict[str, Any]", manifest["progress"])


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None. Unfinished ones are never complete."""
    found = complete_checkpoints(folder)
    return found[-1] if found else None


def complete_checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _COMPLETE.fullmatch(path.name) and (path / MANIFEST).is_file())


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after comparing every file's size with it.

    Raises:
        CheckpointError: no manifest, another format, or a file that is missing or of another size.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {MANIFEST} cannot be read ({error}). {ADVICE}") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.get('format')!r}, this version reads {FORMAT}. {ADVICE}")
    for name, size in manifest["files"].items():
        actual = (path / name).stat().st_size if (path / name).is_file() else None
        if actual != size:
            found = "is missing" if actual is None else f"holds {actual}"
            raise CheckpointError(f"{path}: {name} should hold {size} bytes but {found}. {ADVICE}")
    return cast("dict[str, Any]", manifest)


def stored_shapes(path: Path) -> dict[str, torch.Size]:
    """Name -> global shape of every tensor in a checkpoint."""
    metadata = FileSystemReader(path).read_metadata()
    return {
        name: entry.size
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def empty_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """CPU tensors, shaped as stored, for all names with this prefix: what an optimizer's state is loaded into."""
    metadata = FileSystemReader(path).read_metadata()
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }


def on_main(what: str, action: Callable[[], None]) -> None:
    """Runs `action` on rank 0 while the others wait; its failure is raised on all ranks: none waits for ever.

    Raises:
        CheckpointError: on every rank; says what was being done and why it failed.
    """
    failure: str | None = None
    if dist.get_rank() == 0:
        try:
            action()
        except Exception as error:
            failure = str(error)
    failure = broadcast_object(failure)
    if failure is not None:
        raise CheckpointError(f"{what}: {failure}. Earlier checkpoints are untouched")


def _prepare(folder: Path, partial: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".step_*{_LEFTOVER}"):
        shutil.rmtree(leftover)
    partial.mkdir()


def _complete(partial: Path, final: Path, step: int, progress: Mapping[str, Any], keep: int) -> None:
    files = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
    written = FileSystemReader(partial).read_metadata().storage_data or {}
    missing = sorted({info.relative_path for info in written.values()} - set(files))
    if missing:
        raise OSError(f"{', '.join(missing[:3])} is not here: all ranks must write to one shared file system")
    manifest = {
        "format": FORMAT,
        "step": step,
        "world_size": dist.get_world_size(),
        "torch": torch.__version__,
        "files": files,
        "progress": dict(progress),
    }
    write_text_whole(json.dumps(manifest, indent=1, allow_nan=False), partial / MANIFEST)
    if final.exists():  # the same step again: a run resumed from an older checkpoint passes it a second time
        shutil.rmtree(final)
    os.replace(partial, final)
    sync_folder(final.parent)
    # Only after the rename: at every moment one complete checkpoint exists. One of a later step is of a past this run
    # has left (it resumed from an older one, or counts larger batches now) and must not be the next to be resumed.
    kept = [path for path in complete_checkpoints(final.parent) if path.name <= final.name][-keep:]
    for old in complete_checkpoints(final.parent):
        if old not in kept:
            shutil.rmtree(old)
