"""The folder of a run's checkpoints: what counts as one, which are kept, how one takes or leaves its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

from utils.checkpoint_manifest import MANIFEST
from utils.files import sync_folder

_COMPLETE = re.compile(r"step_(\d{9})")
# Hidden beside the checkpoints: half written; half deleted; one that another of the same step is taking the place of.
_PARTIAL, _REMOVED, _REPLACED = ".partial", ".removed", ".replaced"
_DAMAGED = "damaged_"


def partial_of(final: Path) -> Path:
    """Where a checkpoint is written before it takes its name."""
    return final.with_name(f".{final.name}{_PARTIAL}")


def all_checkpoints(folder: Path) -> list[Path]:
    """Everything that bears a checkpoint's name, oldest first, also without a manifest."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _COMPLETE.fullmatch(path.name) and path.is_dir())


def complete_checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, oldest first; whether they are sound is not looked at."""
    return [path for path in all_checkpoints(folder) if (path / MANIFEST).is_file()]


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None. Unfinished ones are never complete."""
    found = complete_checkpoints(folder)
    return found[-1] if found else None


def prepare(folder: Path, partial: Path) -> None:
    """Makes an empty `partial`, after clearing away what a crash has left."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    restore_replaced(folder)
    for ending in (_PARTIAL, _REMOVED):
        for leftover in folder.glob(f".step_*{ending}"):
            shutil.rmtree(leftover, ignore_errors=leftover != partial)
    partial.mkdir()


def put_in_place(partial: Path, final: Path) -> None:
    """Gives a checkpoint whose files are all written and synced its name."""
    replaced = final.with_name(f".{final.name}{_REPLACED}")
    sync_folder(partial)
    if final.exists():  # the same step again: a run resumed from an older checkpoint passes it a second time
        os.replace(final, replaced)
    os.replace(partial, final)
    sync_folder(final.parent)
    if replaced.exists():
        remove(replaced)


def restore_replaced(folder: Path) -> None:
    """Takes up again what a crash between the two renames of `put_in_place` has left without a name."""
    for hidden in folder.glob(f".step_*{_REPLACED}"):
        final = hidden.with_name(hidden.name.removeprefix(".").removesuffix(_REPLACED))
        if final.exists():
            remove(hidden)
        else:
            os.replace(hidden, final)


def prune(newest: Path, keep: int, keep_best: int) -> None:
    """Removes all but the newest `keep` and the `keep_best` with the highest score; the best of equals is the earliest.

    Called after `newest` has its name: at every moment one complete checkpoint exists. One of a later step is of
    a past this run has left (it resumed from an older one, or counts larger batches now) and must not be the next to
    be resumed; it goes.
    """
    candidates = [path for path in complete_checkpoints(newest.parent) if path.name <= newest.name]
    scored = [(score, path) for path in candidates if keep_best and (score := _score_of(path)) is not None]
    best = [path for _, path in sorted(scored, key=lambda pair: (-pair[0], pair[1].name))[:keep_best]]
    for path in complete_checkpoints(newest.parent):
        if path not in candidates[-keep:] and path not in best:
            remove(path)


def remove(path: Path) -> None:
    """Deletes a checkpoint; half deleted, it is none already."""
    hidden = path.with_name(f".{path.name.removeprefix('.')}{_REMOVED}")
    shutil.rmtree(hidden, ignore_errors=True)
    if hidden.exists():  # held back by a network disk
        hidden = hidden.with_name(f".{path.name.removeprefix('.')}.{time.monotonic_ns()}{_REMOVED}")
    os.replace(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)  # what a network disk holds back goes with the next save


def set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint so that nothing counts or deletes it; returns its new path."""
    aside = path.with_name(_DAMAGED + path.name)
    number = 2
    while aside.exists():
        aside = path.with_name(f"{_DAMAGED}{path.name}.{number}")
        number += 1
    os.replace(path, aside)
    sync_folder(path.parent)
    return aside


def _score_of(path: Path) -> float | None:
    """The verification's mean accuracy at this very step, where there was one."""
    try:
        score = json.loads((path / MANIFEST).read_bytes())["progress"].get("score")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return float(score) if isinstance(score, (int, float)) and not isinstance(score, bool) else None
