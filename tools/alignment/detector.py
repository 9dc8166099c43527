"""YuNet through OpenCV: an image -> faces with five points. Which face counts is decided elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.alignment.template import (
    ARCFACE_TEMPLATE,
    SIZE,
    LandmarkError,
    apply_transform,
    crop_face,
    invert,
    similarity_transform,
)
from utils.errors import DataError

DETECT_SIZE = 640
MIN_SCORE = 0.6
# The second look: a square of 320 pixels with the aligned face, twice as large as its crop will be, in the middle.
_LOOK_SIZE, _LOOK_SCALE = 320, 2
_LOOK_TEMPLATE = (ARCFACE_TEMPLATE + 0.5) * _LOOK_SCALE - 0.5 + (_LOOK_SIZE - SIZE * _LOOK_SCALE) / 2
_MOST_LOOKS, _UPRIGHT = 3, 10.0  # degrees by which a look may turn the face and be the last one
_OVERLAP = 0.3  # of two boxes above which the weaker one is the same face
_MOST = 500  # faces of one image


class DetectorError(DataError):
    """A detector model that cannot be loaded or used; the text says what is needed."""


@dataclass(frozen=True)
class Face:
    """One face of an image.

    Attributes:
        points: (5, 2) float64, (x, y) in pixels: eyes, nose tip, mouth corners; of two the one further left in the
            picture first.
        box: (left, top, width, height) in pixels; NaN where a file of landmarks had none.
        score: the detector's confidence, 0 .. 1; NaN where a file of landmarks had none.
    """

    points: NDArray[np.float64]
    box: tuple[float, float, float, float]
    score: float


class FaceDetector:
    """Finds faces in images of any size; not for use by several threads at once.

    An image is searched at a limited size. Where nothing is found, it is searched once more at twice that size, for
    small faces in large photographs, and with a margin of half its size, for faces that the picture's edge cuts.

    Args:
        model: a YuNet model file (.onnx), from OpenCV's model zoo.
        size: longest side in pixels at which images are searched; smaller images are not enlarged.
        min_score: faces below are not reported, 0 .. 1.

    Raises:
        DetectorError: no such file, or no YuNet model.
    """

    def __init__(self, model: str | Path, *, size: int = DETECT_SIZE, min_score: float = MIN_SCORE) -> None:
        path = Path(model)
        if not path.is_file():
            raise DetectorError(f"{path}: no such file; --detector takes YuNet's face_detection_yunet_*.onnx")
        self._size, self._path = size, path
        try:
            with _quiet():
                self._net: Any = cv2.FaceDetectorYN.create(str(path), "", (64, 64), min_score, _OVERLAP, _MOST)
            self._search(np.zeros((64, 64, 3), dtype=np.uint8))
        except cv2.error as error:
            raise DetectorError(f"{path}: OpenCV cannot use it as a YuNet face detector: {_reason(error)}") from None

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """The faces of an RGB image, uint8 (H, W, 3), best score first; points and boxes in its own pixels."""
        longest = max(image.shape[:2])
        faces = self._search_at(image, min(1.0, self._size / longest))
        if not faces and longest > self._size:
            faces = self._search_at(image, min(1.0, 2 * self._size / longest))
        if not faces:
            margin = longest // 4
            framed = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
            faces = self._search_at(framed, min(1.0, self._size / max(framed.shape[:2])), margin)
        return faces

    def refine(self, image: NDArray[np.uint8], face: Face) -> Face:
        """The same face with its points found again in an upright crop at a good size, from the image's own pixels.

        YuNet's points are off by a tenth of the aligned face where a head is tilted by 30 degrees or small in the
        picture (docs/faces.md has figures). The first look is good enough to turn and enlarge the face for a second;
        a third follows where that one still turns it by much. A face that is not found again keeps its points.
        """
        points = face.points
        for _ in range(_MOST_LOOKS):
            try:
                matrix = similarity_transform(points, _LOOK_TEMPLATE)
                seen = self._search_at(crop_face(image, matrix, _LOOK_SIZE)[0], 1.0)
                if not seen:
                    break
                middle = _LOOK_TEMPLATE.mean(axis=0)
                nearest = min(seen, key=lambda one: float(np.linalg.norm(one.points.mean(axis=0) - middle)))
                turn = similarity_transform(nearest.points, _LOOK_TEMPLATE)
            except LandmarkError:
                break
            points = apply_transform(invert(matrix), nearest.points)
            if abs(np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))) < _UPRIGHT:
                break
        return Face(points, face.box, face.score)

    def _search_at(self, image: NDArray[np.uint8], scale: float, margin: int = 0) -> list[Face]:
        height, width = image.shape[:2]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        try:
            rows = self._search(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise DetectorError(f"{self._path}: OpenCV failed on {size[1]}x{size[0]}: {_reason(error)}") from None
        # cv2.resize puts the pixel at x to (x + 1/2) scale - 1/2
        stretch = np.array([width / size[0], height / size[1]])
        faces = []
        for row in rows[np.argsort(-rows[:, 14], kind="stable")]:
            points = (row[4:14].reshape(5, 2) + 0.5) * stretch - 0.5 - margin
            left, top = (row[:2] + 0.5) * stretch - 0.5 - margin
            wide, high = row[2:4] * stretch
            faces.append(Face(points, (float(left), float(top), float(wide), float(high)), float(row[14])))
        return faces

    def _search(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(faces, 15): box, points and score, in pixels of the BGR image."""
        self._net.setInputSize((image.shape[1], image.shape[0]))
        found = self._net.detect(image)[1]
        rows = np.empty((0, 15)) if found is None else np.asarray(found, dtype=np.float64)
        return rows[np.isfinite(rows).all(axis=1)]


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV 5 warns of every detector that its new engine chooses the device by itself."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _reason(error: cv2.error) -> str:
    return " ".join(str(error).split())[:300]
