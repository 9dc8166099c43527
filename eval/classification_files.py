"""What a classification leaves in its run's folder: results, embeddings, prototypes, snapshots. No scores are made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.classification_metrics import ClassificationError, ClassificationResult
from eval.npz_arrays import NpzError, read_npz
from utils.files import whole_file, write_text_whole

FOLDER, SNAPSHOTS = "classification", "snapshots"
PROTOTYPES = {"best": "best_prototypes.npz", "last": "prototypes.npz"}
_EMBEDDED = ("embeddings", "labels", "prototypes", "class_counts", "step", "epoch")


@dataclass(frozen=True)
class Embedded:
    """The embeddings of labelled images beside the prototypes of their classes, at one step of a run.

    Attributes:
        embeddings: (N, D) float32, not normalised.
        labels: (N,) int64.
        prototypes: (C, D) float32, or (C, K, D).
        class_counts: (C,) int64, training images of each class.
        step: optimizer steps done.
        epoch: in epochs done, a fraction.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    prototypes: NDArray[np.float32]
    class_counts: NDArray[np.int64]
    step: int
    epoch: float


@dataclass(frozen=True)
class Prototypes:
    """The prototypes of a run at one step, and how they tell classes.

    Attributes:
        weight: (C, D) float32, or (C, K, D).
        is_normalized: whether classes are told by directions, else by inner products.
        class_counts: (C,) int64, training images of each class.
        step: optimizer steps done.
        epoch: in epochs done, a fraction.
    """

    weight: Tensor
    is_normalized: bool
    class_counts: NDArray[np.int64]
    step: int
    epoch: float


def embedded_with(embeddings: Tensor, labels: Tensor, prototypes: Prototypes) -> Embedded:
    """Embeddings (N, D) and labels (N,) on the CPU, beside the prototypes that classified them."""
    return Embedded(
        embeddings.numpy(), labels.numpy(), prototypes.weight.numpy(), prototypes.class_counts, prototypes.step,
        prototypes.epoch,
    )  # fmt: skip


def write_embedded(path: Path, embedded: Embedded) -> None:
    """Writes them as an .npz that is there whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as stream:
        np.savez(
            stream,
            embeddings=embedded.embeddings.astype("<f4"),
            labels=embedded.labels.astype("<i8"),
            prototypes=embedded.prototypes.astype("<f4"),
            class_counts=embedded.class_counts.astype("<i8"),
            step=np.array(embedded.step, dtype="<i8"),
            epoch=np.array(embedded.epoch, dtype="<f8"),
        )


def read_embedded(path: Path) -> Embedded:
    """Reads what `write_embedded` wrote.

    Raises:
        ClassificationError: no such file, or another layout; the text says what was expected.
    """
    arrays = _arrays(path, _EMBEDDED)
    embeddings, labels, prototypes = arrays["embeddings"], arrays["labels"], arrays["prototypes"]
    counts, step, epoch = arrays["class_counts"], arrays["step"], arrays["epoch"]
    fits = (
        embeddings.ndim == 2
        and labels.shape == embeddings.shape[:1]
        and prototypes.ndim in (2, 3)
        and prototypes.shape[-1] == embeddings.shape[1]
        and counts.shape == prototypes.shape[:1]
        and step.shape == epoch.shape == ()
        and all(array.dtype.kind == "f" for array in (embeddings, prototypes, epoch))
        and all(array.dtype.kind == "i" for array in (labels, counts, step))
        and (not len(labels) or 0 <= int(labels.min()) <= int(labels.max()) < len(prototypes))
    )
    if not fits:
        raise ClassificationError(
            f"{path}: embeddings {embeddings.shape}, labels {labels.shape}, prototypes {prototypes.shape}, "
            f"class_counts {counts.shape} do not belong together; `python -m eval.classification` writes it again"
        )
    return Embedded(embeddings, labels, prototypes, counts, int(step), float(epoch))


def write_result(folder: Path, dataset: str, result: ClassificationResult, facts: dict[str, Any]) -> None:
    """Writes DATASET.json: all numbers with the lists by class, and where they come from."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: _jsonable(value) for name, value in result.to_dict().items()}
    document = json.dumps({"dataset": dataset, **facts, **numbers}, indent=1, allow_nan=False)
    write_text_whole(document + "\n", folder / f"{dataset}.json")


def write_prototypes(path: Path, prototypes: Prototypes) -> None:
    """Writes the prototypes that go with a file of weights, whole or not at all."""
    with whole_file(path) as stream:
        np.savez(
            stream,
            prototypes=prototypes.weight.detach().float().cpu().numpy(),
            is_normalized=np.array(prototypes.is_normalized),
            class_counts=prototypes.class_counts.astype("<i8"),
            step=np.array(prototypes.step, dtype="<i8"),
            epoch=np.array(prototypes.epoch, dtype="<f8"),
        )


def read_prototypes(run_dir: Path, checkpoint: str = "last") -> Prototypes:
    """The prototypes of a classification run.

    Args:
        run_dir: its folder.
        checkpoint: "best" or "last".

    Raises:
        ClassificationError: not there, or damaged.
    """
    path = run_dir / PROTOTYPES[checkpoint]
    arrays = _arrays(path, ("prototypes", "is_normalized", "class_counts", "step", "epoch"))
    weight, counts = arrays["prototypes"], arrays["class_counts"]
    scalars = [arrays[name] for name in ("is_normalized", "step", "epoch")]
    fits = weight.ndim in (2, 3) and weight.dtype.kind == "f" and counts.shape == weight.shape[:1]
    if not fits or any(value.shape != () for value in scalars):
        raise ClassificationError(f"{path}: prototypes of shape {weight.shape}; let train.py write the file again")
    return Prototypes(
        torch.from_numpy(weight.astype(np.float32)), bool(scalars[0]), counts.astype(np.int64), int(scalars[1]),
        float(scalars[2]),
    )  # fmt: skip


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise ClassificationError(
            f"{path}: there is no such file. A run with task='classification' writes it when it has tested; resume "
            "that run, or score it with `python -m eval.classification RUN_DIR`"
        )
    try:
        arrays, described = read_npz(path, names)
    except NpzError as error:
        raise ClassificationError(str(error)) from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ClassificationError(f"{path}: lacks {', '.join(missing)}; there is {'; '.join(described) or 'nothing'}")
    return arrays


def _jsonable(value: Any) -> Any:
    """JSON knows no infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
