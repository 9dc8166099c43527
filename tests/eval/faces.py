"""Small made-up pair sets and models for the tests of this room; no tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from eval.pairs import PairSet
from utils.images import encode_jpeg


def face(identity: int, shot: int = 0) -> np.ndarray:
    """uint8 (112, 112, 3): a coarse pattern per identity, with noise per shot; JPEG keeps it nearly whole."""
    pattern = np.random.default_rng(identity).integers(40, 200, (4, 4, 3))
    noise = np.random.default_rng((identity, shot)).integers(-20, 20, (4, 4, 3))
    return np.kron((pattern + noise).astype(np.uint8), np.ones((28, 28, 1), dtype=np.uint8))


def jpeg_pairs(num_pairs: int) -> tuple[list[bytes], list[bool]]:
    """Even pairs show one identity twice, odd pairs two."""
    images, flags = [], []
    for pair in range(num_pairs):
        same = pair % 2 == 0
        images += [encode_jpeg(face(pair, 0)), encode_jpeg(face(pair if same else pair + 1000, 1))]
        flags.append(same)
    return images, flags


def memory_pairs(num_pairs: int, num_folds: int = 10) -> PairSet:
    """The same pairs without files."""
    images = []
    for pair in range(num_pairs):
        images += [face(pair, 0), face(pair if pair % 2 == 0 else pair + 1000, 1)]
    is_same = np.arange(num_pairs) % 2 == 0
    return PairSet("memory", images, is_same, num_folds, "0" * 64)


def write_lfw_images(folder: Path, counts: dict[str, int]) -> None:
    """folder/Name/Name_0001.jpg ..."""
    for identity, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for shot in range(1, count + 1):
            (folder / name / f"{name}_{shot:04d}.jpg").write_bytes(encode_jpeg(face(identity, shot)))


class PatternNet(nn.Module):
    """(B, 3, 112, 112) -> (B, 48): the pattern's cells; has batch norm and dropout, so that train and eval differ."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(28)
        self.norm = nn.BatchNorm1d(48)
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.norm(self.pool(images).flatten(1)))


def pattern_embedder(images: Tensor) -> Tensor:
    """uint8 (B, 112, 112, 3) -> (B, 48), without a module."""
    pooled = nn.functional.avg_pool2d(images.permute(0, 3, 1, 2).float(), 28)
    return torch.sub(pooled.flatten(1), 120.0)
