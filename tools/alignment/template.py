"""Five points -> the similarity that brings them to the ArcFace template, and the crop. No detection, no files."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

Floats = NDArray[np.float64]

SIZE = 112
# Eye, eye, nose tip, mouth corner, mouth corner, (x, y) in pixels of the 112x112 crop; of two the one further left in
# the picture comes first. As published with insightface (python-package/insightface/utils/face_align.py, arcface_dst).
ARCFACE_TEMPLATE: Floats = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_MIN_FIT = 1e-6  # correlation of points and template below which no rotation is better than another
_MARGIN = 3  # pixels beside the crop that interpolation reaches


class LandmarkError(DataError):
    """Five points from which no face can be cropped; the text says what is wrong with them."""


def similarity_transform(points: NDArray[np.floating], template: Floats = ARCFACE_TEMPLATE) -> Floats:
    """The rotation, scale and shift without reflection that bring points nearest to the template in least squares.

    With both sets centred and read as complex numbers, z for the points and w for the template, the answer is
    w ~ a z with a = sum(conj(z) w) / sum |z|^2: |a| is the scale, its angle the rotation. In the plane this is the
    solution of Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991),
    reflections excluded, which insightface takes from skimage's SimilarityTransform; the singular value decomposition
    is only needed in more dimensions.

    Args:
        points: (K, 2), (x, y) in pixels of the photograph, K >= 2.
        template: (K, 2), in pixels of the crop.

    Returns:
        (2, 3) float64 M: crop = M @ (x, y, 1), as cv2.warpAffine takes it.

    Raises:
        LandmarkError: points that are not finite, all in one place, or of a shape that any rotation fits as badly.
    """
    source, target = _centred(points), _centred(template)
    if source.shape != target.shape or not np.isfinite(source).all():
        raise LandmarkError(f"points must be {len(target)} pairs of finite numbers; got {np.asarray(points).tolist()}")
    product, spread = np.vdot(source, target), np.vdot(source, source).real
    lengths = np.sqrt(spread * np.vdot(target, target).real)
    if spread <= 1e-9 * (1 + np.abs(points).max() ** 2) or abs(product) <= _MIN_FIT * lengths:
        raise LandmarkError(f"the points lie in one place or in no face's shape: {np.asarray(points).tolist()}")
    factor = product / spread
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    shift = template.mean(axis=0) - linear @ np.asarray(points, dtype=np.float64).mean(axis=0)
    return np.column_stack([linear, shift])


def is_mirrored(points: NDArray[np.floating], template: Floats = ARCFACE_TEMPLATE) -> bool:
    """Whether a reflection would fit the points better than any rotation: left and right are swapped in their order.

    Faces turned far to the side may be so too, so one alone is no error; most of a file are.
    """
    source, target = _centred(points), _centred(template)
    return bool(abs(np.sum(source * target)) > abs(np.vdot(source, target)))


def apply_transform(matrix: Floats, points: NDArray[np.floating]) -> Floats:
    """(K, 2) points of the photograph -> (K, 2) in the crop."""
    moved: Floats = np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return moved


def invert(matrix: Floats) -> Floats:
    """(2, 3), from the crop to the photograph."""
    inverse: Floats = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    return inverse


def crop_face(image: NDArray[np.uint8], matrix: Floats, size: int = SIZE) -> tuple[NDArray[np.uint8], bool]:
    """The aligned face, sampled from the photograph's own pixels; black where the photograph ends.

    Up to half size this is cv2.warpAffine with linear interpolation, as insightface crops. A face of more than twice
    the crop's scale is first shrunk by whole numbers, each pixel the mean of those it covers: linear interpolation
    would look at four of them and leave the others out.

    Args:
        image: uint8 (H, W, 3).
        matrix: (2, 3) from `similarity_transform`.
        size: of the crop, in pixels.

    Returns:
        uint8 (size, size, 3), and whether the crop reaches beyond the photograph.

    Raises:
        LandmarkError: no pixel of the photograph is in the crop.
    """
    height, width = image.shape[:2]
    corners = np.array([[-1, -1], [size, -1], [-1, size], [size, size]], dtype=np.float64)
    reach = apply_transform(invert(matrix), corners)
    shrink = max(1, int(1 / np.hypot(matrix[0, 0], matrix[1, 0])))
    low = np.floor(np.clip(reach.min(axis=0) - _MARGIN * shrink, 0, (width, height))).astype(int)
    high = np.ceil(np.clip(reach.max(axis=0) + _MARGIN * shrink, 0, (width, height))).astype(int)
    if (low >= high).any():
        raise LandmarkError(f"the face lies outside of the picture of {height}x{width} (height x width)")
    region = image[low[1] : high[1], low[0] : high[0]]
    if shrink > 1:
        region = _shrunk(region, shrink)
    # a pixel of the region has its centre in the middle of the pixels it was made from
    middle = low + (shrink - 1) / 2
    placed = matrix @ np.array([[shrink, 0, middle[0]], [0, shrink, middle[1]], [0, 0, 1]])
    crop = cv2.warpAffine(np.ascontiguousarray(region), placed, (size, size), flags=cv2.INTER_LINEAR)
    beyond = (reach.min(axis=0) < -0.5).any() or (reach.max(axis=0) > (width - 0.5, height - 0.5)).any()
    return crop, bool(beyond)


def _centred(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    centred: NDArray[np.complex128] = (values - values.mean(axis=0)) @ np.array([1, 1j])
    return centred


def _shrunk(region: NDArray[np.uint8], shrink: int) -> NDArray[np.uint8]:
    """Means of shrink x shrink pixels; the last row and column continue where they do not fill one."""
    height, width = region.shape[:2]
    below, right = -height % shrink, -width % shrink
    padded = cv2.copyMakeBorder(region, 0, below, 0, right, cv2.BORDER_REPLICATE) if below or right else region
    size = (padded.shape[1] // shrink, padded.shape[0] // shrink)
    smaller: NDArray[np.uint8] = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
    return smaller
