"""What torch.distributed.checkpoint writes with: files that are hashed, a share of the tensors for each rank."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.tensor import DTensor

from utils.checkpoint_manifest import FileRecord
from utils.files import HashedFile


class HashingWriter(FileSystemWriter):
    """Writes this rank's part of a checkpoint, each file synced.

    Attributes:
        written: name -> record of every file that this rank has written to its end.
    """

    def __init__(self, path: Path, *, has_gpu_tensors: bool) -> None:
        # Without a GPU tensor among them no rank may touch a GPU: the default writer opens one wherever torch sees any.
        super().__init__(path, per_thread_copy_ahead=10_000_000 if has_gpu_tensors else 0)
        self.written: dict[str, FileRecord] = {}
        self.fs = _HashingFiles(self.written)


class _HashingFiles(FileSystem):
    """The writer's view of the file system; notes what was written under which name."""

    def __init__(self, written: dict[str, FileRecord]) -> None:
        self._written = written

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        """Opens a file for writing."""
        if mode != "wb":
            raise ValueError(f"{path}: mode {mode!r}; a checkpoint's files are only written here")
        with HashedFile(Path(path)) as stream:
            yield stream
            if not stream.closed:  # torch syncs .metadata while it is still in the buffer
                stream.flush()
                os.fsync(stream.fileno())
        self._written[Path(path).name] = FileRecord(stream.size, stream.hexdigest())

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Renames a file and its record."""
        super().rename(path, new_path)
        self._written[Path(new_path).name] = self._written.pop(Path(path).name)


def own_share(tensors: Mapping[str, Tensor], rank: int, world_size: int, *, main: str) -> dict[str, Tensor]:
    """What `rank` writes: its part of every DTensor, and such replicated tensors that the ranks have equal work.

    A rank that saves in the background needs memory for a copy of this only.

    Args:
        tensors: replicated tensors (equal on all ranks) and DTensors, by name.
        rank: whose share.
        world_size: number of ranks.
        main: replicated tensors whose names begin with this belong to rank 0, which needs them for another file too.
    """
    replicated = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, DTensor)}
    load = [0] * world_size
    owner = {name: 0 for name in replicated if name.startswith(main)}
    load[0] = sum(replicated[name].nbytes for name in owner)
    # The largest first, each to the rank with the least so far: the same on all ranks.
    for name in sorted(replicated.keys() - owner.keys(), key=lambda name: (-replicated[name].nbytes, name)):
        owner[name] = load.index(min(load))
        load[owner[name]] += replicated[name].nbytes
    return {name: tensor for name, tensor in tensors.items() if owner.get(name, rank) == rank}
