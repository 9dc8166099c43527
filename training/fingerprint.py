"""What a run is made of: code, config, data, environment; and what of it has changed since. Writes nothing."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from dataset import Source
from training.run import Run
from utils.distributed import broadcast_object, gather_objects
from utils.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("backbones", "eval", "losses", "sources", "training", "utils")  # the code a run is made of, and two files
MODULES = ("train.py", "dataset.py")
# What may change without a word. Of the config: where a run lies, what it logs and keeps, who reads; and threads,
# num_classes and num_image, which environment and data tell. Of the data: its path, which is `rec`.
_FREE = {
    "config": frozenset(
        {
            "async_save", "frequent", "hang_timeout", "keep_best", "keep_checkpoints", "max_log_size", "name", "notes",
            "num_classes", "num_image", "num_workers", "output", "resume", "source", "threads",
        }
    ),
    "data": frozenset({"path"}),
}  # fmt: skip
_BLOCKS, _BLOCK_BYTES = 64, 64 << 10
_IMAGES = 64
_SHOWN = 12  # changed keys, files or values of one group that are named; more are counted


def take_fingerprint(run: Run) -> dict[str, Any]:
    """Code, config, data and environment of a run as plain JSON; collective, once at its start.

    - code: the commit, and a hash of every Python file that takes part: edits that were not committed show too, and
      without git.
    - config: all keys, resolved.
    - data: what the source says of itself (number of images and classes, size, and a hash of the index or of all file
      names), `content_sha256` of a sample, and the hash of each verification set.
    - environment: versions, the devices of all ranks and their CPU threads, whose number decides the order of sums.
    """
    places = gather_objects((device_name(run.ranks.device), torch.get_num_threads()))
    found: dict[str, Any] | None = None
    if run.ranks.is_main:
        found = {
            "code": code_fingerprint(),
            "config": run.config.to_dict(),
            "data": _data_fingerprint(run),
            "environment": _environment(run, places),
        }
    return broadcast_object(found)


def _data_fingerprint(run: Run) -> dict[str, Any]:
    described = run.source.describe()
    return {
        **described,
        "content_sha256": sample_hash(run.source, Path(str(described["path"]))),
        **run.scored.fingerprint(),
    }


def _environment(run: Run, places: Sequence[tuple[str, int]]) -> dict[str, Any]:
    threads = sorted({count for _, count in places})
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if run.ranks.device.type == "cuda" else None,
        "platform": platform.platform(),
        "ranks": run.ranks.world_size,
        "devices": dict(sorted(Counter(device for device, _ in places).items())),
        "threads": threads[0] if len(threads) == 1 else threads,
    }


@cache
def code_fingerprint() -> dict[str, Any]:
    """The commit, one hash of all the code of a run, and the hash of each file; read once per process."""
    paths = [ROOT / name for name in MODULES]
    paths += [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    files = {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(paths)
    }
    tree = hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in files.items()).encode()).hexdigest()
    return {"commit": git_commit(), "tree_sha256": tree, "files": files}


def sample_hash(source: Source, path: Path) -> str:
    """SHA-256 of a sample of the training data: 4 MiB of a record file, or 64 images and their labels.

    Of one large file: 64 blocks of 64 KiB from its first byte to its last, evenly spaced, and its size. Of anything
    else: pixels and label of 64 images from the first to the last. Both take well under a second, whatever the size.
    It tells one data set from another, and notices one that was packed, ordered or compressed anew. It does not notice
    an edit between the sampled places: of a 60 GB file it reads 1 byte in 15,000.

    Args:
        source: the training data.
        path: where it lies, as it says itself.
    """
    digest = hashlib.sha256()
    if path.is_file():
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            for number in range(_BLOCKS):
                file.seek(max(0, size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
        return digest.hexdigest()
    for index in sorted({(len(source) - 1) * number // (_IMAGES - 1) for number in range(_IMAGES)}):
        try:
            image, label = source.read(index)
            digest.update(f"{index} {label} {image.shape}".encode() + np.ascontiguousarray(image).tobytes())
        except DataError as error:  # whether a run may go on without it is not decided here
            digest.update(f"{index} {type(error).__name__}".encode())
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the CPU where the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_model() or platform.processor() or platform.machine()


def fingerprint_changes(progress: Mapping[str, Any], run: Run) -> list[str]:
    """Log lines for what has changed since a checkpoint was written, one each; empty where nothing has.

    Args:
        progress: of the checkpoint; an older one without a fingerprint is compared by its config.
        run: that goes on from it.
    """
    before = progress.get("fingerprint")
    if not isinstance(before, Mapping):
        before = {"config": progress.get("config")}
    return [f"resume: changed since then: {line}" for line in changes(before, run.fingerprint)]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two fingerprints do not share, a line each, `group: name old -> new`; groups that one lacks are left out."""
    lines: list[str] = []
    for group in ("code", "config", "data", "environment"):
        old, new = before.get(group), now.get(group)
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            continue
        free = _FREE.get(group, frozenset())
        found = _code_changes(old, new) if group == "code" else _value_changes(old, new, free)
        more = len(found) - _SHOWN
        lines += [f"{group}: {line}" for line in found[:_SHOWN]] + ([f"{group}: and {more} more"] if more > 0 else [])
    return lines


def _code_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if old.get("tree_sha256") == new.get("tree_sha256"):
        return []  # another commit with the same files is the same code
    lines = [f"commit {old.get('commit')} -> {new.get('commit')}"] if old.get("commit") != new.get("commit") else []
    before, after = (found if isinstance(found, Mapping) else {} for found in (old.get("files"), new.get("files")))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            lines.append(
                f"{name} " + ("is new" if name not in before else "is gone" if name not in after else "differs")
            )
    return lines


def _value_changes(old: Mapping[str, Any], new: Mapping[str, Any], free: Set[str]) -> list[str]:
    """Changed values; one that the older version did not know, or the newer no longer knows, is no change."""
    return [
        f"{name} {_short(old[name])} -> {_short(new[name])}"
        for name in new
        if name in old and name not in free and old[name] != new[name]
    ]


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a hash
        return value[:12]
    said = repr(value)
    return said if len(said) <= 90 else said[:87] + "..."


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


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
