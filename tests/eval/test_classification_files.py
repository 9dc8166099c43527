"""What a classification leaves on disk: there and back, and what is said of damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eval.classification_files import (
    PROTOTYPES,
    Embedded,
    Prototypes,
    read_embedded,
    read_prototypes,
    write_embedded,
    write_prototypes,
)
from eval.classification_metrics import ClassificationError


def embedded() -> Embedded:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    return Embedded(values, np.array([0, 1, 1]), values[:2] + 1, np.array([5, 7]), step=12, epoch=1.5)


def test_embeddings_come_back(tmp_path: Path) -> None:
    path = tmp_path / "classification" / "test.npz"
    write_embedded(path, embedded())
    found, wanted = read_embedded(path), embedded()
    for name in ("embeddings", "labels", "prototypes", "class_counts"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    assert (found.step, found.epoch) == (12, 1.5)
    assert [item.name for item in path.parent.iterdir()] == ["test.npz"]


def test_prototypes_come_back(tmp_path: Path) -> None:
    weight = torch.randn(4, 2, 3)
    write_prototypes(tmp_path / PROTOTYPES["best"], Prototypes(weight, True, np.array([1, 2, 3, 4]), 7, 0.5))
    found = read_prototypes(tmp_path, "best")
    assert torch.equal(found.weight, weight)
    assert (found.is_normalized, found.class_counts.tolist(), found.step, found.epoch) == (True, [1, 2, 3, 4], 7, 0.5)


def test_a_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ClassificationError, match=r"prototypes\.npz: there is no such file\. A run with task='class"):
        read_prototypes(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.array([0, 1, 2])}, "do not belong together"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "do not belong together"),
        ({"prototypes": np.ones((2, 5), np.float32)}, "do not belong together"),
        ({"class_counts": np.array([5])}, "do not belong together"),
        ({"step": np.array([1])}, "do not belong together"),
        ({"epoch": None}, "lacks epoch"),
        ({"embeddings": np.array(["a", "b", "c"])}, "do not belong together"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, change: dict[str, np.ndarray | None], words: str) -> None:
    whole = embedded()
    arrays = {name: np.asarray(getattr(whole, name)) for name in whole.__dataclass_fields__}
    kept = {name: value for name, value in {**arrays, **change}.items() if value is not None}
    np.savez(tmp_path / "test.npz", **kept)
    with pytest.raises(ClassificationError, match=words):
        read_embedded(tmp_path / "test.npz")


def test_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ClassificationError, match=r"test\.npz"):
        read_embedded(tmp_path / "test.npz")
    np.savez(tmp_path / PROTOTYPES["last"], prototypes=np.ones(3), is_normalized=True, class_counts=1, step=1, epoch=1)
    with pytest.raises(ClassificationError, match=r"prototypes of shape \(3,\)"):
        read_prototypes(tmp_path)
