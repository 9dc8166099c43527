"""Images -> embeddings, batch by batch, each rank a slice; scores are made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eval.embedder import Embedder, EmbedderError
from eval.pairs import PairSet
from utils.errors import DataError

Images: TypeAlias = Sequence[NDArray[np.uint8]]  # (H, W, C) each, decoded when asked for


class EmbeddingError(DataError):
    """Another rank could not embed its images; the text names it."""


def embed_images(
    embedder: Embedder,
    images: Images,
    *,
    batch_size: int = 64,
    flip: bool = True,
    process_group: dist.ProcessGroup | None = None,
    progress: str | None = None,
) -> NDArray[np.float32]:
    """Embed images; collective where a process group is there: every rank must call it.

    Rank r takes the r-th slice of the images, and all ranks receive all embeddings. At any time one batch of pixels is
    in memory beside the embeddings. With `flip` the embedding is the sum of the image's and the mirrored image's, as
    insightface adds them, before any normalisation.

    Args:
        embedder: uint8 (B, H, W, C) -> float32 (B, D).
        images: uint8 (H, W, C) each, all of one size, read by one rank once each.
        batch_size: images decoded and embedded at a time.
        process_group: None is the default group, or no group at all where none has been started.
        progress: title of a bar for this rank's slice; None shows none.

    Returns:
        (len(images), D) float32, equal on every rank; not normalised.

    Raises:
        EmbedderError: an embedder that returns another shape, or a batch size below 1.
        DataError: whatever reading an image raises, on the rank that met it; the others raise EmbeddingError, which
            names the rank.
    """
    if batch_size < 1:
        raise EmbedderError(f"batch_size must be at least 1; got {batch_size}")
    if not dist.is_available() or not dist.is_initialized():
        return _embed(embedder, images, range(len(images)), batch_size, flip, progress).numpy()
    rank, world_size = dist.get_rank(process_group), dist.get_world_size(process_group)
    bounds = [len(images) * r // world_size for r in range(world_size + 1)]
    local: Tensor | None = None
    failure: Exception | None = None
    try:
        own = range(bounds[rank], bounds[rank + 1])
        local = _embed(embedder, images, own, batch_size, flip, progress)
    except Exception as error:  # held back: the other ranks wait for this one in the next collective
        failure = error
    return _gather(local, failure, bounds, process_group).numpy()


def embed_pairs(
    embedder: Embedder,
    pair_set: PairSet,
    *,
    batch_size: int = 64,
    flip: bool = True,
    process_group: dist.ProcessGroup | None = None,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Embed all images of a set of pairs, each distinct one once; collective, see `embed_images`.

    Returns:
        (2N, D) float32, rows 2i and 2i + 1 are pair i; equal on every rank.
    """
    every = pair_set.first_index if len(pair_set.first_index) else np.arange(len(pair_set.images))
    distinct, places = np.unique(every, return_inverse=True)
    embeddings = embed_images(
        embedder,
        _Chosen(pair_set.images, distinct),
        batch_size=batch_size,
        flip=flip,
        process_group=process_group,
        progress=pair_set.name if progress else None,
    )
    return embeddings[places]


class _Chosen(Sequence[NDArray[np.uint8]]):
    """Some of the images, read when asked for."""

    def __init__(self, images: Images, indices: NDArray[np.int64]) -> None:
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._images[int(self._indices[index])]


def _embed(
    embedder: Embedder, images: Images, wanted: range, batch_size: int, flip: bool, progress: str | None
) -> Tensor:
    """Embeddings of the images with the wanted indices, in their order, (len, D) on the CPU; (0, 0) for none."""
    parts = [torch.empty(0, 0)]
    starts = range(wanted.start, wanted.stop, batch_size)
    for first in tqdm(starts, desc=progress, unit="batch", leave=False, disable=progress is None):
        batch = [images[index] for index in range(first, min(first + batch_size, wanted.stop))]
        pixels = torch.from_numpy(np.stack(batch))
        embeddings = embedder(pixels)
        if flip:
            embeddings = embeddings + embedder(pixels.flip(2))
        if embeddings.ndim != 2 or len(embeddings) != len(pixels):
            raise EmbedderError(
                f"an embedder must turn ({len(pixels)}, H, W, C) into ({len(pixels)}, D); "
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
        raise EmbeddingError(f"stopped because of an error on rank {failed}; that rank's output says which")
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
