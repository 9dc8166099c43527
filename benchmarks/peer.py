"""Runs insightface's recognition/arcface_torch from a local clone beside ours, on a CPU. No figure is taken here.

Nothing of it is copied: its modules are imported under their own names, some of which are also names of ours, and
what binds them to a GPU, to NCCL or to an older torch is replaced while they run:

    torch.Tensor.cuda, nn.Module.cuda        return the object itself
    torch.Tensor.to(device=0)                an ordinal of a GPU leaves the tensor where it is
    torch.cuda.set_device, Stream, stream,   do nothing
      current_stream
    torch.cuda.amp.autocast                  does nothing: on a CPU it would only warn
    init_process_group                       one gloo process; a second call is ignored
    DistributedDataParallel(device_ids=)     the argument is dropped
    _LRScheduler(verbose=)                   the argument is dropped: torch no longer has it
    mxnet, torchvision                       stand-ins where not installed, see benchmarks/stand_ins.py

On CUDA only the last three groups (process group, scheduler, stand-ins) are replaced. Its arithmetic is untouched.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.stand_ins import missing_packages

VARIABLE = "ARCFACE_TORCH"
_CPU = torch.device("cpu")


def add_peer_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--arcface-torch DIR``; its default is the environment variable ARCFACE_TORCH."""
    parser.add_argument(
        "--arcface-torch", type=Path, metavar="DIR", default=os.environ.get(VARIABLE),
        help=f"clone of insightface's arcface_torch (default: ${VARIABLE}; without one its rows are left out)",
    )  # fmt: skip


def find_peer(directory: str | Path | None) -> tuple[ArcFaceTorch | None, str]:
    """The peer and an empty text, or None and the reason to print where its rows would stand."""
    if not directory:
        return None, f"arcface_torch left out: neither --arcface-torch DIR nor {VARIABLE} names a clone"
    if not (Path(directory) / "partial_fc_v2.py").is_file():
        return None, f"arcface_torch left out: {directory} has no partial_fc_v2.py; name recognition/arcface_torch"
    return ArcFaceTorch(Path(directory)), ""


class ArcFaceTorch:
    """The clone in a directory.

    ``with peer.running(): peer.module("partial_fc_v2").PartialFC_V2(...)``: whatever of it is imported, built or
    called belongs inside ``running``. Its data loader takes ``local_rank=torch.device("cpu")`` or 0.

    Args:
        directory: recognition/arcface_torch.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        packages = [path.parent.name for path in self.directory.glob("*/__init__.py")]
        self._rooms = {*packages, *(path.stem for path in self.directory.glob("*.py"))}
        self._loaded: dict[str, ModuleType] = {}

    def module(self, name: str) -> ModuleType:
        """One of its modules by the name it has there, say "backbones" or "utils.utils_config"; ours stay imported.

        Raises:
            ImportError: there is none.
        """
        with self.in_place_of_ours(), mock.patch("torch.optim.lr_scheduler._LRScheduler", _scheduler()):
            return importlib.import_module(name)

    def describe(self) -> dict[str, str]:
        """Which clone it is: the commit where git tracks it, and a digest of its Python files."""
        command = [
            "git",
            "-C",
            str(self.directory),
            "log",
            "-1",
            "--format=%h",
            "--abbrev=12",
            "--",
            "partial_fc_v2.py",
        ]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        digest = hashlib.sha256()
        for path in sorted(self.directory.rglob("*.py")):
            digest.update(path.relative_to(self.directory).as_posix().encode() + b"\0" + path.read_bytes())
        return {"commit": commit[:12] or "unknown", "sha256": digest.hexdigest()[:12]}

    @contextmanager
    def running(self, device: torch.device = _CPU) -> Iterator[None]:
        """Everything in the module's table, undone at the end; the process group too, where it was started here."""
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # deprecations of a torch it was not written for
            stack.enter_context(_installed(missing_packages()))
            if not dist.is_initialized():
                backend = "nccl" if device.type == "cuda" else "gloo"
                store = dist.HashStore()  # type: ignore[attr-defined]  # torch exports it without saying so
                dist.init_process_group(backend, store=store, rank=0, world_size=1)
                stack.callback(dist.destroy_process_group)
            stack.enter_context(mock.patch.object(dist, "init_process_group", _nothing))
            if device.type == "cpu":
                for owner, name, stand_in in _cpu_patches():
                    stack.enter_context(mock.patch.object(owner, name, stand_in))
            yield

    @contextmanager
    def in_place_of_ours(self) -> Iterator[None]:
        """Its modules hold the names that some of ours have: for calls that import more of it (``get_config``)."""
        ours = {name: sys.modules.pop(name) for name in list(sys.modules) if self._is_theirs(name)}
        sys.modules.update(self._loaded)
        sys.path.insert(0, str(self.directory))
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(str(self.directory))
            self._loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if self._is_theirs(name)}
            sys.modules.update(ours)

    def _is_theirs(self, name: str) -> bool:
        return name.partition(".")[0] in self._rooms


class _Stream:
    """Stands for a CUDA stream."""

    def __init__(self, *_: Any) -> None: ...

    def wait_stream(self, _: Any) -> None:
        """Nothing runs beside the CPU."""


@contextmanager
def _installed(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Makes them importable; whatever else is imported meanwhile stays."""
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


def _cpu_patches() -> list[tuple[Any, str, Any]]:
    """(owner, attribute, what stands there on a CPU)."""
    move = torch.Tensor.to
    parallel = nn.parallel.DistributedDataParallel

    def to(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if isinstance(options.get("device"), int):
            options.pop("device")
        return move(tensor, *arguments, **options)

    def on_cpu(*arguments: Any, **options: Any) -> nn.Module:
        options.pop("device_ids", None)
        return parallel(*arguments, **options)

    return [
        (torch.Tensor, "cuda", _itself),
        (torch.Tensor, "to", to),
        (nn.Module, "cuda", _itself),
        (nn.parallel, "DistributedDataParallel", on_cpu),
        (torch.cuda, "set_device", _nothing),
        (torch.cuda, "Stream", _Stream),
        (torch.cuda, "stream", _no_context),
        (torch.cuda, "current_stream", _Stream),
        (torch.cuda.amp, "autocast", _no_context),
    ]


def _itself(target: Any, *_: Any, **__: Any) -> Any:
    return target


def _nothing(*_: Any, **__: Any) -> None: ...


def _no_context(*_: Any, **__: Any) -> nullcontext[None]:
    return nullcontext()


def _scheduler() -> type[torch.optim.lr_scheduler.LRScheduler]:
    class Scheduler(torch.optim.lr_scheduler.LRScheduler):
        """As torch had it when the option still existed."""

        def __init__(self, optimizer: torch.optim.Optimizer, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

    return Scheduler
