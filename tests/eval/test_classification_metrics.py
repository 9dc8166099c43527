"""Accuracy and margins of a classification against sorting in float64 and cases with known answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eval import classification_metrics
from eval.classification_metrics import ClassificationError, class_places, classify


def problem(seed: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (60, 4), labels, prototypes of `shape`; some samples are right and some are wrong."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(*shape, generator=generator) * torch.rand(shape[0], *[1] * (len(shape) - 1)).add(0.1)
    labels = torch.randint(0, shape[0], (60,), generator=generator)
    centers = prototypes if len(shape) == 2 else prototypes[:, 0]
    return centers[labels] + 0.8 * torch.randn(60, shape[-1], generator=generator), labels, prototypes


def sorted_places(embeddings: Tensor, labels: Tensor, prototypes: Tensor, *, is_unit: bool) -> list[int]:
    """Where each label comes when the classes are sorted by similarity, in float64, sample by sample."""
    found = []
    for x, label in zip(embeddings.double(), labels.tolist(), strict=True):
        rows = prototypes.double().reshape(len(prototypes), -1, prototypes.shape[-1])
        similarity = [
            max(float(x @ w / (w.norm() if is_unit else 1.0)) for w in class_rows) for class_rows in rows
        ]  # fmt: skip
        order = sorted(range(len(similarity)), key=lambda j: (-similarity[j], j))
        found.append(order.index(label))
    return found


@pytest.mark.parametrize("is_unit", [False, True])
@pytest.mark.parametrize("shape", [(7, 4), (12, 4), (5, 3, 4)])
def test_places_and_accuracies_equal_sorting(
    shape: tuple[int, ...], is_unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification_metrics, "_RESULTS", 100)  # several blocks
    embeddings, labels, prototypes = problem(len(shape), *shape)
    places = np.array(sorted_places(embeddings, labels, prototypes, is_unit=is_unit))
    assert 0 < (places == 0).sum() < 60
    found = class_places(embeddings, labels, prototypes, normalize_prototypes=is_unit)
    assert found.tolist() == places.tolist()
    result = classify(embeddings, labels, prototypes, normalize_prototypes=is_unit)
    assert result.num_images == 60
    assert result.top1 == pytest.approx((places == 0).mean())
    assert result.top5 == (None if shape[0] == 5 else pytest.approx((places < 5).mean()))
    for label in range(shape[0]):
        own = places[labels.numpy() == label]
        assert result.class_images[label] == len(own)
        assert result.class_accuracy[label] == pytest.approx((own == 0).mean(), nan_ok=True)
    assert result.mean_class_accuracy == pytest.approx(np.nanmean(result.class_accuracy))
    assert (result.class_margin is None) == (len(shape) == 3)


def test_a_net_that_says_the_same_of_all_classes_is_right_by_chance_only() -> None:
    labels = torch.arange(10).repeat(3)
    result = classify(torch.zeros(30, 2), labels, torch.randn(10, 2), normalize_prototypes=False)
    assert (result.top1, result.top5) == (pytest.approx(0.1), pytest.approx(0.5))
    assert (result.sample_margin_min, result.sample_margin_mean) == (0, 0)


def test_margins_and_norms_of_a_known_case() -> None:
    prototypes = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-4.0, 0.0]])
    embeddings = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    result = classify(embeddings, torch.tensor([0, 1]), prototypes, normalize_prototypes=True)
    assert result.class_margin == pytest.approx(90.0)
    assert result.sample_margin_min == pytest.approx(0.0, abs=1e-7)  # 45 degrees from two prototypes
    assert result.sample_margin_mean == pytest.approx(0.5)  # cos 0 - cos 90 degrees, and the 0
    assert result.prototype_norm_ratio == pytest.approx(4.0)
    assert result.top1 == pytest.approx(0.5)  # among equals the lower class comes first
    assert classify(embeddings, torch.tensor([0, 1]), prototypes, normalize_prototypes=False).top1 == 0.5


def test_a_zero_prototype_has_no_margin_and_an_infinite_ratio() -> None:
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    result = classify(torch.ones(2, 2), torch.tensor([0, 1]), prototypes, normalize_prototypes=False)
    assert (result.class_margin, result.sample_margin_mean) == (None, None)
    assert math.isinf(result.prototype_norm_ratio)


def test_the_lists_by_class_can_be_left_out_and_absent_classes_are_null() -> None:
    embeddings, prototypes = torch.eye(3), torch.eye(3)
    result = classify(embeddings[:2], torch.tensor([0, 1]), prototypes, normalize_prototypes=True)
    assert "class_accuracy" not in result.to_dict(by_class=False)
    whole = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (whole["class_accuracy"], whole["class_images"], whole["error"]) == ([1.0, 1.0, None], [1, 1, 0], 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embeddings": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.long)}, "of one image at least"),
        ({"labels": torch.tensor([0, 1, 1])}, r"labels \(3,\)"),
        ({"labels": torch.tensor([0, 2])}, r"labels lie in 0 \.\. 2, 2 prototypes allow 0 \.\. 1"),
        ({"labels": torch.tensor([-1, 1])}, r"labels lie in -1 \.\. 1"),
        ({"prototypes": torch.ones(2, 3)}, "cannot classify embeddings of 2 numbers"),
        ({"prototypes": torch.ones(1, 2)}, "two classes at least"),
        ({"embeddings": torch.tensor([[1.0, float("nan")], [1.0, 1.0]])}, "1 of 2 embeddings hold NaN or infinity"),
        ({"prototypes": torch.full((2, 2), float("inf"))}, "2 of 2 prototypes hold NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], words: str) -> None:
    given = {"embeddings": torch.ones(2, 2), "labels": torch.tensor([0, 1]), "prototypes": torch.ones(2, 2), **change}
    with pytest.raises(ClassificationError, match=words):
        classify(given["embeddings"], given["labels"], given["prototypes"], normalize_prototypes=False)
