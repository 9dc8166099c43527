"""Tests a classification in the course of a run: scores, files of the last test, snapshots. Formulas are eval's."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dataset import Source
from eval.classification import classification_record, classification_words, embed_source
from eval.classification_files import (
    FOLDER,
    PROTOTYPES,
    SNAPSHOTS,
    Embedded,
    Prototypes,
    embedded_with,
    write_embedded,
    write_prototypes,
    write_result,
)
from eval.classification_metrics import ClassificationResult, classify
from training.run import Run
from utils.checkpoint import on_main
from utils.errors import DataError
from utils.logging import RunLog

TRAIN_IMAGES = 50_000  # of the training data that are classified at the end, at most
SNAPSHOT_IMAGES, SNAPSHOT_SIZE = 2_000, 3  # of embeddings that can be drawn as they are


def classify_run(run: Run, test: Source, log: RunLog, done: int) -> tuple[float, Prototypes]:
    """Classifies the test images, after the last step also the training images; all ranks embed; collective.

    Leaves prototypes.npz, and after the last step classification/{test,train}.{json,npz}; of embeddings of 2 or 3
    numbers also classification/snapshots/, for an animation.

    Returns:
        Top-1 accuracy on the test images, and the prototypes that they were classified by.

    Raises:
        DataError: a test image that cannot be read, or embeddings that are not finite.
        CheckpointError: on all ranks, where writing failed.
    """
    prototypes = run_prototypes(run, done)
    is_last = done == run.plan.total_steps
    score = 0.0
    for dataset, source in (("test", test), ("train", run.source)) if is_last else (("test", test),):
        start = time.perf_counter()
        indices = _spread(len(source), TRAIN_IMAGES) if dataset == "train" else None
        try:
            embeddings, labels, result = _classify(run, source, prototypes, indices)
        except DataError as error:
            if dataset == "test":
                raise
            # on all ranks alike; training went on without such an image, and must not fail for it at its very end
            log.info(f"the training images are not classified: {error}")
            continue
        seconds = time.perf_counter() - start
        images = str((run.config.test or "the test half") if dataset == "test" else run.config.rec)
        record = classification_record(result, dataset, images=images, seconds=seconds)
        log.metrics("classification", step=done, epoch=run.plan.epoch(done), **record)
        log.info(f"step {done} | {dataset}: {classification_words(result)} | {seconds:.1f} s")
        if dataset == "test":
            score = result.top1
        facts = {"images": images, "step": done, "epoch": prototypes.epoch, "seconds": round(seconds, 3)}
        keep = partial(_keep, run, dataset, result, facts, embedded_with(embeddings, labels, prototypes), is_last)
        on_main(f"keeping the test of step {done}", keep)
    write_run_prototypes(run, prototypes, "last")
    return score, prototypes


def write_run_prototypes(run: Run, prototypes: Prototypes, checkpoint: str) -> None:
    """Writes the prototypes that go with `best.pt` or `model.pt`; collective.

    Raises:
        CheckpointError: on all ranks, where writing failed.
    """
    path = Path(run.config.output or "") / PROTOTYPES[checkpoint]
    on_main(f"writing {path}", lambda: write_prototypes(path, prototypes))


def run_prototypes(run: Run, done: int) -> Prototypes:
    """Those of all ranks, on the CPU of each: a classification has few classes; collective."""
    weight = run.fc.as_global(run.fc.weight.detach())
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return Prototypes(
        whole.float().cpu(), run.fc.head.normalize_prototypes, run.source.class_counts(), done,
        done / run.plan.steps_per_epoch,
    )  # fmt: skip


def _classify(
    run: Run, source: Source, prototypes: Prototypes, indices: NDArray[np.int64] | None
) -> tuple[Tensor, Tensor, ClassificationResult]:
    embeddings, labels = embed_source(
        run.backbone, source, image_format=run.source.image_format, indices=indices, device=run.ranks.device
    )
    return embeddings, labels, classify(
        embeddings, labels, prototypes.weight, normalize_prototypes=prototypes.is_normalized
    )  # fmt: skip


def _keep(
    run: Run, dataset: str, result: ClassificationResult, facts: dict[str, object], embedded: Embedded, is_last: bool
) -> None:
    """Leaves what reports and pictures are made of."""
    place = Path(run.config.output or "") / FOLDER
    if dataset == "test" and embedded.embeddings.shape[1] <= SNAPSHOT_SIZE:
        chosen = _spread(len(embedded.labels), SNAPSHOT_IMAGES)
        part = replace(embedded, embeddings=embedded.embeddings[chosen], labels=embedded.labels[chosen])
        write_embedded(place / SNAPSHOTS / f"step_{embedded.step:09d}.npz", part)
    if is_last:
        write_result(place, dataset, result, facts)
        write_embedded(place / f"{dataset}.npz", embedded)


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of 0 .. count - 1, evenly spaced."""
    return np.arange(count) if count <= limit else np.linspace(0, count - 1, limit).round().astype(np.int64)
