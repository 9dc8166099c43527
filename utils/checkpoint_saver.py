"""Saving beside the steps: a copy in CPU memory, a thread that writes it, and what ranks agree on about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from utils.checkpoint import CheckpointError
from utils.distributed import gather_objects
from utils.launcher import SAVER

Tensors = Mapping[str, Tensor]
Write = Callable[[Tensors, "dist.ProcessGroup | None"], None]

# Ranks wait for the slowest disk among them, and no step waits with them.
_TIMEOUT = timedelta(hours=2)


class CheckpointSaver:
    """At most one save that is being written while training goes on; one saver for each rank of a run.

    The threads of all ranks talk over a gloo group of their own, never over that of the steps, whose collectives could
    not be told from theirs.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._group: dist.ProcessGroup | None = None
        self._copies: dict[str, Tensor] = {}

    @property
    def has_failed(self) -> bool:
        """Whether the save under way has failed as far as this rank knows; costs nothing.

        Ranks learn of it at different moments: agree on it with what a step agrees on anyway, then call `wait` on all.
        """
        return self._failure is not None

    def start(self, tensors: Tensors, write: Write) -> None:
        """Copies `tensors` and lets a thread call `write(copies, group)`; collective. Waits for the save before this.

        The copies stay allocated for the next save: fresh memory would cost each save its first touch.

        Args:
            tensors: what this rank writes; free to change as soon as this returns.
            write: collective over `group`; ends with a CheckpointError on all ranks or on none.

        Raises:
            CheckpointError: on all ranks: the save before this failed, or there is no memory for the copy.
        """
        self.wait()
        failure, copies = None, {}
        try:
            copies = self._copy(tensors)
        except RuntimeError as error:
            failure = f"no memory for a copy of the state, use async_save=False: {error}"
        self._agree(failure)
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        # No daemon: a run that ends with an error lets the save end first.
        self._thread = threading.Thread(target=self._run, args=(copies, write), name=SAVER)
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is being written any more; collective.

        Raises:
            CheckpointError: on all ranks, with the same text, if the save failed on one.
        """
        if self._thread is None:  # on all ranks or on none
            return
        self._thread.join()
        self._thread = None
        failure, self._failure = self._failure, None
        self._agree(failure)

    def _run(self, copies: Tensors, write: Write) -> None:
        try:
            with torch.no_grad():
                write(copies, self._group)
        except CheckpointError as error:
            self._failure = str(error)
        except BaseException as error:  # nobody above this would tell of it
            self._failure = f"saving in the background failed: {type(error).__name__}: {error}"

    def _agree(self, failure: str | None) -> None:
        failures = [text for text in gather_objects(failure) if text]
        if failures:
            raise CheckpointError(failures[0])

    def _copy(self, tensors: Tensors) -> dict[str, Tensor]:
        """Copies in host memory, page-locked where a GPU fills them; those of the save before are used again."""
        is_cuda = False
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            source = tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
            kept = self._copies.get(name)
            if kept is None or kept.shape != source.shape or kept.dtype != source.dtype:
                kept = self._copies[name] = _empty_on_host(source)
            kept.copy_(source, non_blocking=True)
            is_cuda |= source.is_cuda
            copies[name] = _as_global(kept, tensor) if isinstance(tensor, DTensor) else kept
        if is_cuda:
            torch.cuda.current_stream().synchronize()
        return copies


def _empty_on_host(like: Tensor) -> Tensor:
    if like.is_cuda:
        try:
            return torch.empty_like(like, device="cpu", pin_memory=True)
        except RuntimeError:  # the system grants only so much page-locked memory
            pass
    return torch.empty_like(like, device="cpu")


def _as_global(local: Tensor, like: DTensor) -> DTensor:
    """A DTensor on the CPU with this local part, cut as `like`."""
    mesh = like.device_mesh
    if mesh.device_type != "cpu":
        mesh = DeviceMesh.from_group(dist.group.WORLD, "cpu")  # type: ignore[arg-type]
    return DTensor.from_local(local, mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())
