"""Imbalanced versions of sources: the papers' numbers, the same images every time, nothing copied."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest

from sources.arrays import ArraySource
from sources.imbalance import ImbalancedSource, imbalanced, imbalanced_counts
from sources.synthetic import SyntheticSource
from utils.images import ImageFormat


def numbered(labels: np.ndarray, num_classes: int) -> ArraySource:
    """Image i is four pixels that spell i."""
    pixels = np.arange(len(labels), dtype="<u4").view(np.uint8).reshape(-1, 2, 2, 1)
    return ArraySource("numbers", Path("numbers"), pixels, labels, num_classes, ImageFormat(2, 2, 1))


def number(image: np.ndarray) -> int:
    return int(np.ascontiguousarray(image).reshape(-1).view("<u4")[0])


@pytest.mark.parametrize(
    ("kind", "ratio", "expected"),
    [
        ("none", 100.0, [5000] * 10),
        ("long_tailed", 100.0, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # Cao et al.: 12,406 images
        ("long_tailed", 10.0, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        ("long_tailed", 1.0, [5000] * 10),
        ("step", 100.0, [5000] * 5 + [50] * 5),
        ("step", 10.0, [5000] * 5 + [500] * 5),
    ],
)
def test_numbers_of_cifar10(kind: Literal["none", "long_tailed", "step"], ratio: float, expected: list[int]) -> None:
    assert imbalanced_counts(np.full(10, 5000), kind, ratio).tolist() == expected


def test_numbers_of_cifar100_and_of_uneven_sets() -> None:
    assert imbalanced_counts(np.full(100, 500), "long_tailed", 100.0).sum() == 10847
    assert imbalanced_counts(np.array([10, 0, 40, 3, 8]), "step", 10.0).tolist() == [10, 0, 40, 1, 1]
    assert imbalanced_counts(np.array([7]), "long_tailed", 50.0).tolist() == [7]


@pytest.mark.parametrize(
    ("kind", "ratio", "message"),
    [
        ("tailed", 2.0, "'tailed' is unknown; allowed: none, long_tailed, step"),
        ("step", 0.5, "imbalance_ratio = 0.5"),
        ("step", float("nan"), "imbalance_ratio = nan"),
        ("step", float("inf"), "imbalance_ratio = inf"),
    ],
)
def test_wrong_arguments(kind: str, ratio: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imbalanced_counts(np.full(3, 9), kind, ratio)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["long_tailed", "step"])
def test_images_labels_counts_and_index_agree(kind: Literal["long_tailed", "step"]) -> None:
    labels = np.random.default_rng(3).integers(0, 5, 400)
    whole = numbered(labels, 5)
    source = pickle.loads(pickle.dumps(imbalanced(whole, kind, 20.0, 7)))
    counts, index = source.class_counts(), source.class_index()
    assert np.array_equal(counts, imbalanced_counts(np.bincount(labels), kind, 20.0))
    assert len(source) == counts.sum() < len(whole)
    found = [source.read(place) for place in range(len(source))]
    originals = [number(image) for image, _ in found]
    assert originals == sorted(set(originals))
    assert [label for _, label in found] == labels[originals].tolist()
    for label, count in enumerate(counts.tolist()):
        places = index.image(np.full(count, label), np.arange(count))
        assert {found[place][1] for place in places} == {label}
        assert len(set(places.tolist())) == count


def test_the_draw_follows_seed_and_class_and_a_larger_ratio_keeps_a_part() -> None:
    whole = numbered(np.arange(600) % 3, 3)

    def kept(ratio: float, seed: int) -> set[int]:
        source = imbalanced(whole, "step", ratio, seed)
        assert isinstance(source, ImbalancedSource)
        return set(source.kept[source.kept % 3 == 2].tolist())

    assert kept(4.0, 1) == kept(4.0, 1)
    assert kept(10.0, 1) < kept(4.0, 1)
    assert kept(4.0, 1) != kept(4.0, 2)
    assert len(kept(4.0, 1)) == 50
    assert max(kept(4.0, 1)) > 300  # not just the first of the class
    classes_swapped = imbalanced(numbered((np.arange(600) + 1) % 3, 3), "step", 4.0, 1)
    assert isinstance(classes_swapped, ImbalancedSource)
    places = {int(image) // 3 for image in classes_swapped.kept[classes_swapped.kept % 3 == 1]}
    assert places == {image // 3 for image in kept(4.0, 1)}  # the class's places, whatever the images' numbers


def test_another_class_draws_other_places() -> None:
    source = imbalanced(numbered(np.arange(800) % 4, 4), "step", 4.0, 1)
    assert isinstance(source, ImbalancedSource)
    third, fourth = (set((source.kept[source.kept % 4 == label] // 4).tolist()) for label in (2, 3))
    assert len(third) == len(fourth) == 50
    assert third != fourth


def test_no_copy_of_the_pixels_and_none_is_the_source_itself() -> None:
    whole = numbered(np.arange(60) % 3, 3)
    assert imbalanced(whole, "none", 100.0, 0) is whole
    image, _ = imbalanced(whole, "step", 5.0, 0).read(0)
    assert np.shares_memory(image, whole.read(0)[0])


def test_what_it_says_of_itself() -> None:
    described = imbalanced(SyntheticSource(3, 90), "long_tailed", 9.0, 4).describe()
    assert described["kind"] == "synthetic"
    assert (described["images"], described["images_before"], described["classes"]) == (30 + 10 + 3, 90, 3)
    assert (described["imbalance"], described["imbalance_ratio"], described["imbalance_seed"]) == (
        "long_tailed",
        9.0,
        4,
    )


def test_names_of_classes_are_passed_on_and_nothing_else() -> None:
    whole = SyntheticSource(3, 9)
    source = imbalanced(whole, "step", 2.0, 0)
    assert not hasattr(source, "names")
    whole.names = ["a", "b", "c"]  # type: ignore[attr-defined]
    whole.reader = SimpleNamespace()  # type: ignore[attr-defined]
    assert source.names == ["a", "b", "c"]  # type: ignore[attr-defined]
    assert not hasattr(source, "reader")


def test_images_of_unknown_label_are_left_out_where_bad_records_are_skipped() -> None:
    class Damaged(SyntheticSource):
        def class_index(self) -> None:  # type: ignore[override]
            from sources import SourceError

            raise SourceError("record 4 is damaged")

        def known_labels(self) -> np.ndarray:
            return np.where(np.arange(12) == 4, -1, np.arange(12) % 3)

    with pytest.raises(ValueError, match="record 4 is damaged"):
        imbalanced(Damaged(3, 12), "step", 2.0, 0)
    source = imbalanced(Damaged(3, 12), "step", 2.0, 0, "skip")
    assert isinstance(source, ImbalancedSource)
    assert source.class_counts().tolist() == [4, 3, 2]
    assert 4 not in source.kept
