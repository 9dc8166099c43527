"""Made-up faces whose five points are known, and photographs of them; no tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.data import SHARED, needs
from tools.alignment.template import ARCFACE_TEMPLATE

DETECTOR = SHARED / "detector" / "face_detection_yunet_2026may.onnx"
needs_detector = needs("detector/face_detection_yunet_2026may.onnx", "lfw/images")


def dots(size: int = 112) -> np.ndarray:
    """uint8 (size, size, 3) grey with a bright blob at each template point: where it goes can be measured."""
    image = np.full((size, size, 3), 90, dtype=np.uint8)
    rows, columns = np.mgrid[0:size, 0:size]
    for x, y in ARCFACE_TEMPLATE:
        blob = 150 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.0**2))
        image = np.maximum(image, (90 + blob).astype(np.uint8)[..., None])
    return image


def blob_centres(image: np.ndarray) -> np.ndarray:
    """(5, 2): the bright blobs' centres of mass, searched near the template points."""
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    light = np.clip(image[:, :, 0].astype(float) - 100, 0, None)
    centres = []
    for x, y in ARCFACE_TEMPLATE:
        near = light * ((columns - x) ** 2 + (rows - y) ** 2 < 8**2)
        centres.append([(near * columns).sum(), (near * rows).sum()] / near.sum())
    return np.array(centres)


def similarity(scale: float, degrees: float, middle: tuple[float, float], size: int = 112) -> np.ndarray:
    """(2, 3): crop -> photograph, with the crop's middle at `middle`."""
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array(middle) - linear @ np.full(2, (size - 1) / 2)])


def paste(crop: np.ndarray, matrix: np.ndarray, height: int, width: int, color: int = 120) -> np.ndarray:
    """A photograph (height, width) that shows `crop` where `matrix` puts it."""
    back = (color, color, color)
    return cv2.warpAffine(crop, matrix, (width, height), flags=cv2.INTER_CUBIC, borderValue=back)


def lfw_faces(count: int) -> list[np.ndarray]:
    """Some aligned faces of LFW, RGB."""
    paths = sorted((SHARED / "lfw" / "images").glob("*/*.jpg"))
    chosen: list[Path] = paths[:: max(1, len(paths) // count)][:count]
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in chosen]
