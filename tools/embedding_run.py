"""Embeds the missing parts of a set, on any number of ranks, each part kept as it is done. No command line here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eval.embedder import Embedder
from eval.embedding import EmbeddingError
from tools.embedding_parts import Part, PartFolder, PartsError
from tools.face_reading import Batch, FaceReader, ReadAhead
from utils.distributed import Ranks, broadcast_object, gather_objects, shared_store
from utils.errors import DataError

_FAILED = "failed"


def begin_parts(parts: PartFolder, output: Path, ranks: Ranks, *, restart: bool) -> list[range]:
    """The slices that are missing, on every rank; raises on all of them where the main one cannot open the folder."""
    missing: list[range] = []
    problem = ""
    if ranks.is_main:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            parts.open(restart=restart)
            missing = parts.missing()
        except (DataError, OSError) as error:
            problem = str(error)
    missing, problem = broadcast_object((missing, problem))
    if problem:
        raise PartsError(problem)
    return missing


def embed_parts(
    embedder: Embedder,
    reader: FaceReader,
    parts: PartFolder,
    missing: Sequence[range],
    ranks: Ranks,
    *,
    batch_size: int = 64,
    flip: bool = True,
    readers: int = 2,
) -> float:
    """Embeds the missing slices, each rank its share of them, and keeps each as it is done; collective.

    Batches begin anew in each slice, so that an embedding does not depend on where a run was stopped or on the ranks.

    Returns:
        Seconds that this rank's model waited for images.

    Raises:
        DataError: what reading an image raises, on the rank that met it; the others raise EmbeddingError.
    """
    waited = 0.0
    failure: Exception | None = None
    try:
        wanted = missing[ranks.rank :: ranks.world_size]
        waited = _embed_own(embedder, reader, parts, wanted, ranks, batch_size, flip, readers)
    except Exception as error:  # held back: the other ranks wait for this one in the exchange below
        failure = error
        if (store := shared_store()) is not None:
            store.set(_FAILED, "1")
    failed = [rank for rank, is_bad in enumerate(gather_objects(failure is not None)) if is_bad]
    if failure is not None:
        raise failure
    if failed:
        raise EmbeddingError(f"stopped because of an error on rank {failed}; that rank's output says which")
    return waited


def _embed_own(
    embedder: Embedder,
    reader: FaceReader,
    parts: PartFolder,
    wanted: Sequence[range],
    ranks: Ranks,
    size: int,
    flip: bool,
    readers: int,
) -> float:
    store = shared_store()
    batches = (part[first : first + size] for part in wanted for first in range(0, len(part), size))
    read = ReadAhead(reader.read, batches, readers)
    total = sum(map(len, wanted))
    with tqdm(total=total, desc="embed", unit=" images", disable=None if ranks.is_main else True) as progress:
        for part in wanted:
            if store is not None and store.check([_FAILED]):
                raise EmbeddingError("another rank has stopped; its output says why")
            done = []
            for _ in range(0, len(part), size):
                batch = next(read)
                done.append((batch, _embedded(embedder, batch.images, flip=flip)))
                progress.update(len(batch.indices) + len(batch.skipped))
            parts.save(part.start, _joined(done))
    return read.waited


def _embedded(embedder: Embedder, images: NDArray[np.uint8], *, flip: bool) -> NDArray[np.float32]:
    """(K, D), with `flip` the sum of the image's and the mirrored image's as insightface adds them; K may be 0."""
    if not len(images):
        return np.empty((0, 0), np.float32)
    pixels = torch.from_numpy(images)
    embeddings = embedder(pixels)
    if flip:
        embeddings = embeddings + embedder(pixels.flip(2))
    return embeddings.float().cpu().numpy()


def _joined(done: Sequence[tuple[Batch, NDArray[np.float32]]]) -> Part:
    full = [embeddings for _, embeddings in done if len(embeddings)]
    embeddings = np.concatenate(full) if full else np.empty((0, 0), np.float32)
    indices = np.array([index for batch, _ in done for index in batch.indices], dtype=np.int64)
    broken = indices[~np.isfinite(embeddings).all(axis=1)] if len(indices) else indices
    if len(broken):
        raise EmbeddingError(
            f"{len(broken)} embeddings hold NaN or infinity, the first of image {broken[0]}: the model has diverged or "
            "its weights are damaged; in reduced precision try --precision fp32"
        )
    scores = np.array([score for batch, _ in done for score in batch.scores], dtype=np.float32)
    return Part(embeddings, indices, scores, [skipped for batch, _ in done for skipped in batch.skipped])
