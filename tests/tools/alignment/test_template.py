"""The similarity against closed forms and Umeyama's decomposition; the crop against known places and means."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.tools.alignment.pictures import blob_centres, dots, paste, similarity
from tools.alignment.template import (
    ARCFACE_TEMPLATE,
    LandmarkError,
    apply_transform,
    crop_face,
    invert,
    is_mirrored,
    similarity_transform,
)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's solution by singular value decomposition, for any number of dimensions; float64."""
    mean_x, mean_y = source.mean(axis=0), target.mean(axis=0)
    variance = ((source - mean_x) ** 2).sum() / len(source)
    covariance = (target - mean_y).T @ (source - mean_x) / len(source)
    left, singular, right = np.linalg.svd(covariance)
    sign = np.ones(source.shape[1])
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        sign[-1] = -1
    rotation = left @ np.diag(sign) @ right
    scale = (singular * sign).sum() / variance
    return np.column_stack([scale * rotation, mean_y - scale * rotation @ mean_x])


@pytest.mark.parametrize("degrees", [-179, -90, -30, 0, 45, 90, 180])
@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
def test_exact_similarities_are_found(degrees, scale):
    truth = similarity(scale, degrees, (300.0, -20.0))
    points = apply_transform(truth, ARCFACE_TEMPLATE)
    np.testing.assert_allclose(similarity_transform(points), invert(truth), rtol=1e-9, atol=1e-9)


def test_two_points_have_a_closed_form():
    got = similarity_transform(np.array([[0.0, 0], [2, 0]]), np.array([[5.0, 5], [5, 9]]))  # a quarter turn, twice
    np.testing.assert_allclose(got, [[0, -2, 5], [2, 0, 5]], atol=1e-12)


def test_noisy_and_mirrored_points_as_umeyama_solves_them():
    random = np.random.default_rng(0)
    for trial in range(500):
        truth = similarity(random.uniform(0.1, 10), random.uniform(-180, 180), tuple(random.uniform(-500, 500, 2)))
        noise = random.standard_normal((5, 2)) * random.choice([0.1, 3, 30])
        shape = (ARCFACE_TEMPLATE + noise) * ([-1, 1] if trial % 3 == 0 else [1, 1])
        points = apply_transform(truth, shape)
        wanted = umeyama(points, ARCFACE_TEMPLATE)
        np.testing.assert_allclose(similarity_transform(points), wanted, rtol=1e-7, atol=1e-7)
        assert np.linalg.det(wanted[:, :2]) > 0


def test_no_other_similarity_is_nearer():
    random = np.random.default_rng(1)
    points = random.uniform(0, 500, (5, 2))
    best = similarity_transform(points)

    def cost(matrix: np.ndarray) -> float:
        return float(((apply_transform(matrix, points) - ARCFACE_TEMPLATE) ** 2).sum())

    for _ in range(200):
        a, b, x, y = random.standard_normal(4) * [1e-3, 1e-3, 0.5, 0.5]
        assert cost(best + np.array([[a, -b, x], [b, a, y]])) > cost(best)


def test_points_that_are_none():
    for points in (np.full((5, 2), 7.0), np.full((5, 2), np.nan), np.full((5, 2), 1e5) + 1e-7 * ARCFACE_TEMPLATE):
        with pytest.raises(LandmarkError):
            similarity_transform(points)
    square = np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    with pytest.raises(LandmarkError, match="no face's shape"):  # mirrored exactly, every rotation is as bad
        similarity_transform(square * [1, -1], square)
    with pytest.raises(LandmarkError, match="5 pairs of finite numbers"):
        similarity_transform(ARCFACE_TEMPLATE[:4])
    line = np.array([[float(step), 2.0 * step] for step in range(5)])  # in a line there still is a best rotation
    np.testing.assert_allclose(similarity_transform(line), umeyama(line, ARCFACE_TEMPLATE), atol=1e-9)


def test_swapped_eyes_and_mouth_corners_are_noticed():
    turned = apply_transform(similarity(3, 100, (0, 0)), ARCFACE_TEMPLATE)
    assert not is_mirrored(turned)
    assert is_mirrored(turned[[1, 0, 2, 4, 3]])
    assert is_mirrored(turned * [-1, 1])


@pytest.mark.parametrize(("scale", "degrees"), [(0.6, 0), (1, 25), (1.9, -40), (2.5, 10), (5.3, 170), (7.2, -20)])
def test_the_crop_brings_known_points_back(scale, degrees):
    """Also where the photograph is shrunk first: half a pixel of error there would show."""
    matrix = similarity(scale, degrees, (700.3, 640.6))
    photograph = paste(dots(), matrix, 1300, 1400)
    crop, beyond = crop_face(photograph, invert(matrix))
    assert not beyond
    assert np.abs(blob_centres(crop) - blob_centres(dots())).max() < 0.12


def test_up_to_half_size_it_is_opencvs_warp():
    matrix = similarity(1.7, 12, (180, 150))
    photograph = np.random.default_rng(0).integers(0, 256, (330, 340, 3), dtype=np.uint8)
    crop, _ = crop_face(photograph, invert(matrix))
    wanted = cv2.warpAffine(photograph, invert(matrix), (112, 112))
    assert np.abs(crop.astype(int) - wanted).max() <= 3  # its fixed point has another origin


def test_large_faces_are_averaged_not_picked():
    photograph = np.random.default_rng(0).integers(0, 2, (1200, 1200, 1), dtype=np.uint8).repeat(3, 2) * 255
    crop, _ = crop_face(photograph, np.array([[0.1, 0, 0], [0, 0.1, 0]]))
    assert crop.std() < 20  # of 10 x 10 pixels the mean: 127.5 / 10; one of them would have 127.5
    assert abs(crop.mean() - 127.5) < 2


def test_beyond_the_edge_is_black_and_told():
    photograph = np.full((200, 200, 3), 200, dtype=np.uint8)
    crop, beyond = crop_face(photograph, np.array([[1.0, 0, 30], [0, 1, 0]]))
    assert beyond
    assert crop[:, :29].max() == 0
    assert crop[:, 31:].min() == 200
    with pytest.raises(LandmarkError, match="outside of the picture of 200x200"):
        crop_face(photograph, np.array([[1.0, 0, 500], [0, 1, 0]]))


def test_photographs_wider_than_opencv_warps():
    photograph = np.zeros((20, 40000, 3), dtype=np.uint8)
    photograph[:, 39000:] = 250
    crop, _ = crop_face(photograph, np.array([[1.0, 0, -38944], [0, 1, 50]]))
    assert crop[60, 50].tolist() == [0, 0, 0]
    assert crop[60, 60].tolist() == [250, 250, 250]
