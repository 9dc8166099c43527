"""LFW, the look-alike list and insightface's own .bin file, where they are to be had."""

from __future__ import annotations

import pytest
from torch import Tensor
from torch.nn.functional import avg_pool2d

from eval.embedding import embed_pairs
from eval.pairs import PairSet, load_pairs
from eval.verification import evaluate_pairs
from tests.data import SHARED, needs, needs_lfw


@needs("golden/small_lfw.bin")
def test_a_verification_file_made_by_insightface():
    pairs = load_pairs("golden/small_lfw.bin", SHARED)
    assert pairs.is_same.tolist() == [True] * 10
    assert pairs.images[19].shape == (112, 112, 3)
    result = evaluate_pairs(embed_pairs(raw_pixels, pairs), pairs.is_same, num_folds=pairs.num_folds)
    assert (result.auc, result.eer) == (None, None)
    assert result.num_same == 10


def raw_pixels(images: Tensor) -> Tensor:
    """7 x 7 averages, each channel's mean removed: better than chance on aligned faces, by little."""
    small = avg_pool2d(images.permute(0, 3, 1, 2).float(), 16).flatten(2)
    return (small - small.mean(dim=2, keepdim=True)).flatten(1)


def thinned(pairs: PairSet, keep: int) -> PairSet:
    """The first `keep` same and different pairs of each of the ten folds."""
    chosen = [i for i in range(len(pairs.is_same)) if i % 300 < keep]
    images = [pairs.images[2 * i + side] for i in chosen for side in (0, 1)]
    return PairSet(pairs.name, images, pairs.is_same[chosen], 10, pairs.data_sha256)


@needs_lfw
@pytest.mark.slow
def test_raw_pixels_on_lfw_are_better_than_chance():
    pairs = load_pairs("lfw", SHARED)
    assert len(pairs.images) == 12_000
    assert pairs.num_folds == 10
    few = thinned(pairs, 50)
    assert few.is_same.reshape(10, 2, 50).all(axis=2).tolist() == [[True, False]] * 10
    result = evaluate_pairs(embed_pairs(raw_pixels, few), few.is_same)
    assert 0.58 < result.accuracy < 0.80
    assert result.auc is not None
    assert result.auc > 0.62
    assert [far for far, tar in result.tar_at_far.items() if tar is not None] == [0.1]


@needs("lfw/pairs_lookalike.txt")
@pytest.mark.slow
def test_the_look_alike_list_has_same_then_different_in_every_fold():
    pairs = load_pairs("lfw/images:lfw/pairs_lookalike.txt", SHARED)
    assert pairs.name == "pairs_lookalike"
    blocks = pairs.is_same.reshape(10, 2, 300)
    assert blocks[:, 0].all()
    assert not blocks[:, 1].any()
