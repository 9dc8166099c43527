"""Agreement in closed forms, pairs embedded once each, and speeds that are ratios of the same round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.embedder import OnnxEmbedder
from eval.pair_metrics import evaluate_pairs
from eval.pairs import PairSet
from tests.eval.faces import memory_pairs, pattern_embedder
from tools.export import throughput
from tools.export.parity import (
    Agreement,
    agreement,
    evenly_spaced,
    on_pairs,
    on_random_images,
    random_images,
    require_agreement,
)  # fmt: skip
from tools.export.throughput import compare_speeds, words
from tools.export.variant import DisagreementError, ExportError, require_cosine
from utils.images import FACE, ImageFormat


def test_agreement_in_closed_form() -> None:
    expected = np.array([[3.0, 0.0], [0.0, 2.0]])
    got = np.array([[3.0, 3.0], [0.0, 2.5]])
    found = agreement(expected, got, is_normalized=False)
    assert (found.images, found.difference, found.largest) == (2, 3.0, 3.0)
    half = math.sqrt(0.5)
    assert found.unit_difference == pytest.approx(half)
    assert found.worst_cosine == pytest.approx(half)
    assert found.mean_cosine == pytest.approx((1 + half) / 2)
    unit = agreement(expected, np.array([[half, half], [0.0, 1.0]]), is_normalized=True)
    assert (unit.difference, unit.largest) == (pytest.approx(half), 1.0)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_embeddings_without_a_direction_do_not_agree(bad: float) -> None:
    found = agreement(np.ones((2, 3)), np.array([[1.0, 1, 1], [bad] * 3]), is_normalized=False)
    assert math.isnan(found.worst_cosine)
    with pytest.raises(DisagreementError, match=r"the worst cosine .* is nan, allowed is -1"):
        require_cosine(found.worst_cosine, -1, "x.onnx was not written")


def test_exact_files_are_held_to_their_values_too() -> None:
    """A cosine does not see an embedding of twice the length."""
    one = Agreement(3, 0.5, 2.0, 0.0, 1.0, 1.0)
    require_agreement({1: one}, "x", 0.99, is_exact=False)
    with pytest.raises(DisagreementError, match=r"at batch 1 onnxruntime differs from PyTorch by 5\.000e-01"):
        require_agreement({1: one}, "x", 0.99, is_exact=True)
    with pytest.raises(DisagreementError, match="weights overflow float32"):
        require_agreement({1: Agreement(1, np.nan, np.nan, np.nan, np.nan, np.nan)}, "x", 0.9, is_exact=True)


def test_random_images_are_the_same_every_time() -> None:
    small = ImageFormat(4, 5, 1)
    assert torch.equal(random_images(3, small, 7), random_images(3, small, 7))
    assert random_images(3, small).shape == (3, 4, 5, 1)
    with pytest.raises(ExportError, match=r"batch 1 came back as \(1, 2\), not \(1, 48\)"):
        on_random_images(pattern_embedder, lambda images: torch.zeros(len(images), 2), FACE, is_normalized=False)


class Counting(Sequence[Any]):
    """Images that count how often each is read."""

    def __init__(self, images: Sequence[Any]) -> None:
        self.images, self.reads = images, Counter[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.reads[index] += 1
        return self.images[index]


def noisy(images: Tensor) -> Tensor:
    """The same embeddings, turned a little by what is in them."""
    found = pattern_embedder(images)
    return found + 40 * torch.sin(found * 17)


class File(OnnxEmbedder):
    """A function in the place of a file."""

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        self._embed, self.is_normalized = embed, False

    def __call__(self, images: Tensor) -> Tensor:
        return self._embed(images)


@pytest.mark.parametrize("flip", [True, False])
def test_pairs_through_both(flip: bool) -> None:
    plain = memory_pairs(12)
    images = Counting([*plain.images[:2], *plain.images[:2], *plain.images[4:]])  # pair 1 repeats pair 0's images
    first = np.arange(24)
    first[2:4] = [0, 1]
    pair_set = PairSet("memory", images, plain.is_same, plain.num_folds, "ab", first)
    both = {"noisy": File(noisy), "same": File(pattern_embedder)}
    results = on_pairs(pattern_embedder, both, pair_set, batch_size=5, flip=flip)
    found = results["noisy"]
    assert sorted(images.reads) == [0, 1, *range(4, 24)]
    assert set(images.reads.values()) == {1}
    assert found.agreement.images == (44 if flip else 22)
    for embedder, result in ((pattern_embedder, found.expected), (noisy, found.got)):
        pixels = torch.from_numpy(np.stack(list(images.images)))
        embeddings = embedder(pixels) + (embedder(pixels.flip(2)) if flip else 0)
        wanted = evaluate_pairs(embeddings.numpy(), plain.is_same, num_folds=plain.num_folds)
        assert result.accuracy == wanted.accuracy
        np.testing.assert_allclose(result.scores, wanted.scores, atol=1e-6)
    facts = found.to_dict()
    assert facts["accuracy"]["change"] == pytest.approx(found.got.accuracy - found.expected.accuracy)
    assert facts["worst_cosine"] < facts["mean_cosine"] < 1
    same = results["same"]
    assert (same.change, same.agreement.difference) == (0, 0)
    assert "change +0.0000 points of 12 pairs" in same.words()


def test_evenly_spaced_images() -> None:
    assert evenly_spaced([np.zeros(1)] * 10, 5) == [0, 2, 4, 6, 8]
    assert evenly_spaced([np.zeros(1)] * 3, 5) == [0, 1, 2]
    assert evenly_spaced([], 5) == []


def test_speeds_are_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up clock: PyTorch takes 2 s a call, the file 1 s, and every later round all of it doubles."""
    now, factor = [0.0], [1.0]
    sizes: list[tuple[str, int]] = []
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    def embedder(name: str, cost: float) -> Any:
        def embed(images: Tensor) -> Tensor:
            sizes.append((name, len(images)))
            now[0] += cost * factor[0]
            if len(sizes) % 4 == 0:
                factor[0] *= 2
            return images

        return embed

    contestants = {"PyTorch": embedder("PyTorch", 2.0), "onnxruntime": embedder("onnxruntime", 1.0)}
    found = compare_speeds(contestants, random_images(2, FACE), batches=(2,), rounds=3, seconds=0.5)
    assert [(one.name, one.ratio) for one in found] == [("PyTorch", 1.0), ("onnxruntime", 2.0)]
    assert [one.images_per_second for one in found] == [0.5, 1.0]
    assert Counter(sizes) == {("PyTorch", 2): 6, ("onnxruntime", 2): 6}  # one call outside the clock, one inside
    assert "2.00 x PyTorch" in words(found, 1).splitlines()[2]
