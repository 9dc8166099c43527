"""Photographs with faces somewhere in them, made from aligned ones: what a user's own folder looks like. No tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tools.borders import fill_borders

WIDTH, HEIGHT = 400, 320


def photograph(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An aligned face (112, 112, 3), enlarged, turned by up to 20 degrees and placed in a photograph (320, 400, 3)."""
    scale, angle = random.uniform(1.2, 1.9), random.uniform(-20, 20)
    matrix = cv2.getRotationMatrix2D((56, 56), angle, scale)
    margin = 75 * scale  # nearly half the diagonal: the face stays inside
    matrix[:, 2] += [random.uniform(margin, WIDTH - margin) - 56, random.uniform(margin, HEIGHT - margin) - 56]
    face = fill_borders(face)
    background = cv2.GaussianBlur(cv2.resize(face, (WIDTH, HEIGHT)), (0, 0), 20)
    turned = cv2.warpAffine(face, matrix, (WIDTH, HEIGHT))
    mask = cv2.warpAffine(np.ones((112, 112), np.float32), matrix, (WIDTH, HEIGHT))[..., None]
    return (turned * mask + background * (1 - mask)).round().astype(np.uint8)


def write_photographs(faces: Path, out: Path, *, test: int, train: int, images: int) -> None:
    """Fills out/test/person_NNN and out/train/person_NNN with photographs of the people in `faces`.

    Args:
        faces: a folder of aligned faces per person.
        out: the folder to fill.
        test: people to verify on, the first in order.
        train: people to train on, the next ones.
        images: photographs of each; who has fewer is left out.
    """
    random = np.random.default_rng(0)
    people = [folder for folder in sorted(faces.iterdir()) if len(list(folder.glob("*.jpg"))) >= images]
    for place, person in enumerate(people[: test + train]):
        folder = out / ("test" if place < test else "train") / f"person_{place:03d}"
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted(person.glob("*.jpg"))[:images]):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            assert image is not None
            picture = photograph(image, random)
            cv2.imwrite(str(folder / f"{number:03d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
