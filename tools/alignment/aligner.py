"""One photograph -> the one face that counts, cropped; what is a miss. Writes no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.image_set import read_image_file
from tools.alignment.detector import DETECT_SIZE, MIN_SCORE, Face, FaceDetector
from tools.alignment.landmarks import Landmarks
from tools.alignment.template import LandmarkError, crop_face, similarity_transform
from tools.borders import fill_borders
from utils.errors import DataError
from utils.images import decode_image

CHOICES = ("largest", "central", "only")
MISSES = ("unreadable", "no face", "too small", "several faces", "no landmarks", "unusable landmarks")


@dataclass(frozen=True)
class AlignOptions:
    """How faces are chosen and cropped.

    Attributes:
        face: of several faces: "largest" or "central" (nearest to the middle of the picture), or "only": a miss.
        min_size: pixels; a face whose box is narrower or lower is a miss. Nothing where a file gave no box.
        min_score: the detector's confidence below which nothing counts as a face; as for min_size.
        detect_size: longest side in pixels at which photographs are searched.
        fills_borders: continue the photograph into what lies beyond its edge, instead of black.
        refines: find the points of the chosen face once more in an upright crop, see FaceDetector.refine.
    """

    face: str = "largest"
    min_size: int = 0
    min_score: float = MIN_SCORE
    detect_size: int = DETECT_SIZE
    fills_borders: bool = False
    refines: bool = True


class MissError(DataError):
    """A photograph that gives no aligned face.

    Attributes:
        kind: one of MISSES.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason

    def message(self) -> str:
        """Kind and reason."""
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


@dataclass(frozen=True)
class AlignedFace:
    """What came of a photograph.

    Attributes:
        image: uint8 (112, 112, 3) RGB.
        face: the face it shows, in pixels of the photograph.
        num_faces: all that were found; 1 with a file of landmarks.
    """

    image: NDArray[np.uint8]
    face: Face
    num_faces: int


class Aligner:
    """Aligns photographs one by one; not for use by several threads at once.

    Args:
        options: see there.
        detector: finds faces; may be None where every face is given.
    """

    def __init__(self, options: AlignOptions, detector: FaceDetector | None = None) -> None:
        self.options, self._detector = options, detector

    def align(self, image: NDArray[np.uint8], face: Face | None = None) -> AlignedFace:
        """The aligned face of a photograph.

        Args:
            image: uint8 (H, W, 3) RGB, upright.
            face: where it is; None lets the detector find it.

        Raises:
            MissError: no face that counts, several where one is asked for, or points that are none of a face.
        """
        faces = [face] if face is not None else self._detect(image)
        # a face that is given was chosen by whoever gave it, however sure the detector was
        options = self.options if face is None else replace(self.options, min_score=0.0)
        chosen = choose_face(faces, image.shape[:2], options)
        if face is None and self._detector is not None and self.options.refines:
            chosen = self._detector.refine(image, chosen)
        try:
            crop, reaches_beyond = crop_face(image, similarity_transform(chosen.points))
        except LandmarkError as error:
            raise MissError("unusable landmarks", str(error)) from None
        if reaches_beyond and self.options.fills_borders:
            crop = fill_borders(crop)
        return AlignedFace(crop, chosen, len(faces))

    def _detect(self, image: NDArray[np.uint8]) -> list[Face]:
        if self._detector is None:
            raise MissError("no landmarks", "the file of landmarks does not name it")
        return self._detector.detect(image)


def make_aligner(options: AlignOptions, model: str | Path | None) -> Aligner:
    """An aligner with a detector of its own, or none; DetectorError where the model is none."""
    if model is None:
        return Aligner(options)
    return Aligner(options, FaceDetector(model, size=options.detect_size, min_score=options.min_score))


def face_in_file(landmarks: Landmarks, name: str) -> Face:
    """The face that a file of landmarks gives an image; MissError where it does not name it."""
    face = landmarks.get(name)
    if face is None:
        raise MissError("no landmarks", f"{landmarks.path} does not name it")
    return face


def choose_face(faces: Sequence[Face], size: tuple[int, ...], options: AlignOptions) -> Face:
    """The one face of those found that counts, see AlignOptions.

    Args:
        faces: of one image.
        size: (height, width) of the image.
        options: see there.

    Raises:
        MissError: none, or several where options.face is "only".
    """
    sound = [face for face in faces if math.isnan(face.score) or face.score >= options.min_score]
    if not sound:
        raise MissError("no face", f"none with a score of {options.min_score:g} or more" if faces else "")
    large = [face for face in sound if not min(face.box[2:]) < options.min_size]
    if not large:
        found = max(min(face.box[2:]) for face in sound)
        raise MissError("too small", f"the largest face is {found:.0f} pixels, {options.min_size} are asked for")
    if options.face == "only" and len(large) > 1:
        raise MissError("several faces", f"{len(large)}, where one is asked for")
    if options.face == "central":
        middle = np.array([size[1], size[0]]) / 2
        return min(large, key=lambda face: (float(np.linalg.norm(_middle(face) - middle)), -_area(face)))
    return max(large, key=_area)


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB, upright as the camera noted, uint8 (H, W, 3); alpha is dropped, grey becomes RGB.

    Raises:
        MissError: unreadable: no file, no image, damaged, or beyond the limits of bytes and pixels.
    """
    try:
        return decode_image(read_image_file(path))
    except DataError as error:
        raise MissError("unreadable", str(error)) from None


def _middle(face: Face) -> NDArray[np.float64]:
    left, top, width, height = face.box
    return face.points.mean(axis=0) if math.isnan(left) else np.array([left + width / 2, top + height / 2])


def _area(face: Face) -> float:
    return 0.0 if math.isnan(face.box[2]) else face.box[2] * face.box[3]
