"""How classes are split over ranks, where prototypes start, and how shards become global tensors."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from losses.collectives import Collectives
from losses.sampling import mixed_seed

_INITIAL_BLOCK = 4096  # classes that share one generator; part of what (seed, class) means, so never change it


def initial_prototypes(
    start: int, stop: int, embedding_size: int, std: float, seed: int, sub_centers: int = 1
) -> Tensor:
    """Normal prototypes of the global classes start .. stop, (stop - start, D) float32, on CPU.

    With several sub-centres (stop - start, sub_centers, D). A pure function of (seed, global class): different on every
    rank, the same on any number of ranks.
    """
    width = embedding_size * sub_centers
    rows = torch.empty(stop - start, width)
    for block in range(start // _INITIAL_BLOCK, -(-stop // _INITIAL_BLOCK)):
        generator = torch.Generator().manual_seed(mixed_seed(seed, block))
        values = torch.randn(_INITIAL_BLOCK, width, generator=generator)
        first, last = max(start, block * _INITIAL_BLOCK), min(stop, (block + 1) * _INITIAL_BLOCK)
        rows[first - start : last - start] = values[first - block * _INITIAL_BLOCK : last - block * _INITIAL_BLOCK]
    rows.mul_(std)
    return rows if sub_centers == 1 else rows.unflatten(1, (sub_centers, embedding_size))


def class_block(num_classes: int, rank: int, world_size: int) -> tuple[int, int]:
    """Half-open range of classes that a rank owns, split as DTensor's Shard(0) splits: 10 over 4 is 3, 3, 3, 1."""
    size = -(-num_classes // world_size)
    return min(rank * size, num_classes), min((rank + 1) * size, num_classes)


def as_global(rows: Tensor, num_classes: int, collectives: Collectives) -> Tensor:
    """A per-class tensor of this rank (C_local, ...) as a DTensor over all classes; itself without a group."""
    if not collectives.is_distributed:
        return rows
    mesh = DeviceMesh.from_group(collectives.group or dist.group.WORLD, rows.device.type)  # type: ignore[arg-type]
    shape = torch.Size((num_classes, *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def as_local(rows: Tensor) -> Tensor:
    """This rank's part of a tensor over all classes."""
    return rows.to_local() if isinstance(rows, DTensor) else rows
