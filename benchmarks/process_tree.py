"""What a running training looks like from outside: its processes' memory, handles and threads by Linux's /proc."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
_MEMORY = {
    "Rss:": "rss_bytes",
    "Pss:": "pss_bytes",
    "Pss_Anon:": "anonymous_bytes",
    "Pss_Shmem:": "shared_bytes",
}


@dataclass(frozen=True)
class Tree:
    """Processes of one run.

    Attributes:
        ranks: those that train, oldest first.
        readers: their descendants.
    """

    ranks: list[int]
    readers: list[int]


def find_tree(root: int) -> Tree:
    """The ranks at or below process `root` (train.py itself or its launcher) and the processes below them."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            # The name, in brackets, may hold anything: what follows it is what can be split.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(folder.name))
    ranks = [root] if not _is_launcher(root) else [pid for pid in sorted(children.get(root, [])) if _trains(pid)]
    readers: list[int] = []
    waiting = list(ranks)
    while waiting:
        below = sorted(children.get(waiting.pop(), []))
        readers += below
        waiting += below
    return Tree(ranks, readers)


def sample(root: int, folder: Path) -> dict[str, Any] | None:
    """One look at a run; None where no rank is there (any more).

    Memory, handles and threads are summed over the ranks, and apart from that over their readers. Resident memory
    counts a page in every process that has it, `pss_bytes` divides it among all processes of the machine (so it moves
    with those of others). Over all of the run, each page once: `anonymous_bytes` is what they allocated, and
    `shared_bytes` what they have in /dev/shm and the like.
    """
    tree = find_tree(root)
    ranks = [found for pid in tree.ranks if (found := _of_process(pid))]
    readers = [found for pid in tree.readers if (found := _of_process(pid))]
    if not ranks:
        return None
    row: dict[str, Any] = {"time": time.time(), "ranks": len(ranks), "readers": len(readers)}
    for name, processes in (("rank", ranks), ("reader", readers)):
        row |= {
            f"{name}_{key}": sum(found[key] for found in processes)
            for key in ("rss_bytes", "pss_bytes", "files", "threads")
        }
    row |= {key: sum(found[key] for found in [*ranks, *readers]) for key in ("anonymous_bytes", "shared_bytes")}
    row |= {key: row[f"rank_{key}"] + row[f"reader_{key}"] for key in ("files", "threads")}
    return row | folder_bytes(folder)


def folder_bytes(folder: Path) -> dict[str, int]:
    """Bytes on disk of a run's folder, by what they are for."""
    sizes = {"checkpoint_bytes": 0, "board_bytes": 0, "metrics_bytes": 0, "text_bytes": 0, "other_bytes": 0}
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size = (Path(place) / name).stat().st_size
            except OSError:  # renamed or removed meanwhile
                continue
            parts = (Path(place) / name).relative_to(folder).parts
            kind = {"checkpoints": "checkpoint", "tensorboard": "board", "metrics.jsonl": "metrics"}.get(parts[0])
            kind = kind or ("text" if parts[0].startswith("training.log") else "other")
            sizes[f"{kind}_bytes"] += size
    return {**sizes, "disk_bytes": sum(sizes.values())}


def _of_process(pid: int) -> dict[str, int]:
    """Memory, handles and threads; empty where it has ended."""
    folder = PROC / str(pid)
    try:
        lines = [line.split() for line in (folder / "smaps_rollup").read_text().splitlines()]
        found = {_MEMORY[words[0]]: int(words[1]) * 1024 for words in lines if words[0] in _MEMORY}
        found["files"] = len(list((folder / "fd").iterdir()))
        found["threads"] = len(list((folder / "task").iterdir()))
    except (OSError, IndexError):
        return {}
    return found if len(found) == len(_MEMORY) + 2 else {}


def _command(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _is_launcher(pid: int) -> bool:
    return "torch.distributed.run" in _command(pid)


def _trains(pid: int) -> bool:
    return any(Path(word).name == "train.py" for word in _command(pid))
