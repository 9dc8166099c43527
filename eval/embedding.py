"""Pairs -> embeddings, batch by batch, each rank a slice; scores are made elsewhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eval.embedder import Embedder
from eval.pairs import PairError, PairSet


def embed_pairs(
    embedder: Embedder,
    pair_set: PairSet,
    *,
    batch_size: int = 64,
    flip: bool = True,
    process_group: dist.ProcessGroup | None = None,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Embed all images of a set; collective where a process group is there: every rank must call it.

    Each distinct image is embedded once; rank r takes the r-th slice of them, and all ranks receive all. At any time
    one batch of pixels is in memory beside the embeddings. With `flip` the embedding is the sum of the image's and the
    mirrored image's, as insightface adds them, before any normalisation.

    Args:
        embedder: uint8 (B, 112, 112, 3) -> float32 (B, D).
        pair_set: 2N images.
        batch_size: images decoded and embedded at a time.
        process_group: None is the default group, or no group at all where none has been started.
        progress: show a bar for this rank's slice.

    Returns:
        (2N, D) float32, rows 2i and 2i + 1 are pair i; equal on every rank.

    Raises:
        PairError: an image that cannot be read; the rank that met it names it, the others name the rank.
    """
    if batch_size < 1:
        raise PairError(f"embed_pairs: batch_size must be at least 1; got {batch_size}")
    every = pair_set.first_index if len(pair_set.first_index) else np.arange(len(pair_set.images))
    distinct, places = np.unique(every, return_inverse=True)
    if not dist.is_available() or not dist.is_initialized():
        return _embed(embedder, pair_set, distinct, batch_size, flip, progress).numpy()[places]
    rank, world_size = dist.get_rank(process_group), dist.get_world_size(process_group)
    bounds = [len(distinct) * r // world_size for r in range(world_size + 1)]
    local: Tensor | None = None
    failure: Exception | None = None
    try:
        own = distinct[bounds[rank] : bounds[rank + 1]]
        local = _embed(embedder, pair_set, own, batch_size, flip, progress)
    except Exception as error:  # held back: the other ranks wait for this one in the next collective
        failure = error
    return _gather(local, failure, bounds, process_group).numpy()[places]


def _embed(
    embedder: Embedder, pair_set: PairSet, wanted: NDArray[np.int64], batch_size: int, flip: bool, progress: bool
) -> Tensor:
    """Embeddings of the images with the wanted indices, in their order, (len, D) on the CPU; (0, 0) for none."""
    parts = [torch.empty(0, 0)]
    batches = range(0, len(wanted), batch_size)
    for first in tqdm(batches, desc=pair_set.name, unit="batch", leave=False, disable=not progress):
        indices = wanted[first : first + batch_size].tolist()
        images = torch.from_numpy(np.stack([pair_set.images[index] for index in indices]))
        embeddings = embedder(images)
        if flip:
            embeddings = embeddings + embedder(images.flip(2))
        if embeddings.ndim != 2 or len(embeddings) != len(images):
            raise PairError(
                f"{pair_set.name}: an embedder must turn ({len(images)}, H, W, C) into ({len(images)}, D); "
                f"it returned {tuple(embeddings.shape)}"
            )
        parts.append(embeddings.float().cpu())
    return torch.cat(parts[1:]) if len(parts) > 1 else parts[0]


def _gather(
    local: Tensor | None, failure: Exception | None, bounds: list[int], group: dist.ProcessGroup | None
) -> Tensor:
    """All ranks' slices in order, (2N, D); raises on every rank where one failed, so that none waits for ever."""
    world_size = len(bounds) - 1
    device = _collective_device(group)
    width = -1 if local is None else local.shape[1]
    widths = [torch.empty(1, dtype=torch.int64, device=device) for _ in range(world_size)]
    dist.all_gather(widths, torch.tensor([width], dtype=torch.int64, device=device), group=group)
    if failure is not None:
        raise failure
    failed = [rank for rank, value in enumerate(widths) if int(value) < 0]
    if failed:
        raise PairError(f"verification stopped because of an error on rank {failed}; that rank's output says which")
    # gloo gathers even blocks only: pad to the longest slice; a rank without images has no width of its own
    sizes = [stop - start for start, stop in pairwise(bounds)]
    block = torch.zeros(max(sizes), max(int(value) for value in widths), device=device)
    if local is not None and len(local):
        block[: len(local)] = local.to(device)
    blocks = [torch.empty_like(block) for _ in range(world_size)]
    dist.all_gather(blocks, block, group=group)
    return torch.cat([part[:size] for part, size in zip(blocks, sizes, strict=True)]).cpu()


def _collective_device(group: dist.ProcessGroup | None) -> torch.device:
    """The CPU where the group carries CPU tensors, as ours does; a group of NCCL alone gathers on this rank's GPU."""
    if "gloo" in str(dist.get_backend_config(group)):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
