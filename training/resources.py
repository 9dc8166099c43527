"""What a run needs of a machine, and what the machine has: disk, memory, shared memory, open files. Changes nothing."""

from __future__ import annotations

import math
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dataset import Source
from losses import HEADS, build_head
from utils.config import Config

STATES = {"sgd": 1, "adamw": 2}  # what an optimizer keeps per weight
LINE_BYTES = 400  # of a line of metrics.jsonl
BOARD_BYTES = 16 << 20  # TensorBoard's events, which are bounded
SLOTS_PER_READER = 3  # batches that a reader is ahead and the one in use, as dataset.py has them
_SHARED_MEMORY = Path("/dev/shm")
_LOGITS = 256 << 20  # memory_budget's default
_PROCESS = 400 << 20  # Python, torch and its libraries


@dataclass(frozen=True)
class Sizes:
    """Bytes of one run's tensors.

    Attributes:
        backbone: its state dict.
        prototypes: of all classes, over all ranks.
        batch: pixels of one rank's batch, uint8.
        states: optimizer values per weight.
    """

    backbone: int
    prototypes: int
    batch: int
    states: int

    @property
    def checkpoint(self) -> int:
        """One checkpoint, from all ranks."""
        return (1 + self.states) * (self.backbone + self.prototypes)


def sizes_of(config: Config, model: nn.Module, source: Source | None) -> Sizes:
    """The sizes that config, backbone (its storage is not looked at) and data make."""
    backbone = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    num_classes = source.num_classes if source is not None else config.num_classes or 0
    sub_centers = build_head(config.head, **config.head_options).sub_centers if config.head in HEADS else 1
    batch = 0 if source is None else config.batch_size * math.prod(source.image_format.shape)
    prototypes = 4 * num_classes * config.embedding_size * sub_centers
    return Sizes(backbone, prototypes, batch, STATES[config.optimizer])


def disk_needed(config: Config, sizes: Sizes, total_steps: int) -> int:
    """Bytes a run has on disk at most at one time.

    The kept checkpoints, the one being written, last and best model (and one of them being written), both halves of
    training.log, metrics.jsonl to its end, and TensorBoard's events. Not dumps of steps whose numbers were not finite:
    they are made only where there is room.
    """
    checkpoints = (config.keep_checkpoints + config.keep_best + 1) * sizes.checkpoint
    lines = LINE_BYTES * (total_steps // config.frequent + 1)
    # Log lines for people are no longer than those for machines.
    return checkpoints + 4 * sizes.backbone + min(lines, 2 * config.max_log_size << 20) + lines + BOARD_BYTES


def memory_needed(config: Config, sizes: Sizes, world_size: int, *, sample_rate: float | None = None) -> int:
    """Bytes that a rank cannot do without, activations left out: a lower bound.

    Weights, optimizer states and gradients of the backbone and of this rank's prototypes; of sampled prototypes there
    are a copy and a gradient, of all of them a gradient.
    """
    rate = config.sample_rate if sample_rate is None else sample_rate
    rows = sizes.prototypes / world_size
    gradients = rows if rate >= 1 else 2 * rate * rows
    return int((1 + sizes.states) * rows + gradients + (2 + sizes.states) * sizes.backbone)


def fitting_sample_rate(config: Config, sizes: Sizes, world_size: int, available: float) -> float | None:
    """The largest of a few usual rates with which `memory_needed` leaves a fifth of what there is; None: no rate."""
    rates = [rate for rate in (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01) if rate < config.sample_rate]
    fits = (rate for rate in rates if memory_needed(config, sizes, world_size, sample_rate=rate) <= 0.8 * available)
    return next(fits, None)


def fitting_world_size(config: Config, sizes: Sizes, world_size: int, available: float) -> int | None:
    """How many ranks of so much memory would hold the classes, up to 65,536; None where the backbone does not fit."""
    while world_size <= 65_536:
        if memory_needed(config, sizes, world_size) <= 0.8 * available:
            return world_size
        world_size *= 2
    return None


def memory_available(device: str, local_rank: int, local_world_size: int) -> int | None:
    """Bytes free for this rank: of its GPU, or its share of the machine's (or container's); None: not known."""
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            return None
        return torch.cuda.mem_get_info(local_rank)[0]
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    lines = info.read_text(encoding="ascii").splitlines()
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")  # a container sees its own group here
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free.append(max(0, int(limit) - int((group / "memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(free) // local_world_size if free else None


def shared_memory_needed(config: Config, sizes: Sizes, local_world_size: int) -> int:
    """Bytes in /dev/shm through which the readers of this machine hand batches over."""
    slots = config.num_workers * SLOTS_PER_READER + bool(config.num_workers)
    return local_world_size * slots * sizes.batch


def shared_memory_free() -> int | None:
    """Bytes free in /dev/shm; None where there is none."""
    if not _SHARED_MEMORY.is_dir():
        return None
    status = os.statvfs(_SHARED_MEMORY)
    return status.f_bavail * status.f_frsize


def open_files_needed(config: Config) -> int:
    """File handles of a rank: queues, pipes and a slot's memory per reader, logs, checkpoint, libraries."""
    return 128 + 16 * config.num_workers


def open_files_allowed() -> int:
    """The limit that this process runs under."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def as_size(num_bytes: float) -> str:
    """`1.5 GB`, with three digits at least where there are any."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if unit == "bytes" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"


def local_ranks() -> int:
    """How many ranks share this machine, by the launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
