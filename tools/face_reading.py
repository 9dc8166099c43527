"""Images for embedding, decoded or aligned ahead by threads while the model computes. No model and no files written."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.image_set import ImageSet
from tools.alignment.aligner import Aligner, AlignOptions, face_in_file, make_aligner
from tools.alignment.landmarks import Landmarks
from utils.errors import DataError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Batch:
    """Some images, read.

    Attributes:
        images: (K, 112, 112, 3) uint8; those that could be read.
        indices: which ones they are, K.
        scores: the detector's, K; NaN where none ran.
        skipped: index and reason of the others.
    """

    images: NDArray[np.uint8]
    indices: list[int]
    scores: list[float]
    skipped: list[tuple[int, str]]


class FaceReader:
    """Reads images of a set as 112x112 faces; several threads may.

    Args:
        images: opened with `image_format=None` where they are to be aligned.
        skips_bad: images that cannot be read are told instead of raised.
        align: None for images that are aligned already.
        detector: YuNet's file, for aligning.
        landmarks: for aligning, instead of a detector.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        skips_bad: bool = False,
        align: AlignOptions | None = None,
        detector: Path | None = None,
        landmarks: Landmarks | None = None,
    ) -> None:
        self._images, self._skips_bad, self._align = images, skips_bad, align
        self._detector, self._landmarks = detector, landmarks
        self._own = threading.local()  # a detector may serve one thread at a time

    def read(self, indices: Sequence[int]) -> Batch:
        """Those images, in order.

        Raises:
            DataError: one of them cannot be read or shows no face, unless they are skipped.
        """
        faces, good, scores, skipped = [], [], [], []
        for index in indices:
            try:
                image, score = self._one(index)
            except DataError as error:
                if not self._skips_bad:
                    raise
                skipped.append((index, str(error)))
                continue
            faces.append(image)
            good.append(index)
            scores.append(score)
        images = np.stack(faces) if faces else np.empty((0, 112, 112, 3), np.uint8)
        return Batch(images, good, scores, skipped)

    def _one(self, index: int) -> tuple[NDArray[np.uint8], float]:
        image = self._images.images[index]
        if self._align is None:
            return image, float("nan")
        name = self._images.names[index]
        try:
            face = None if self._landmarks is None else face_in_file(self._landmarks, name)
            aligned = self._aligner().align(image, face)
        except DataError as error:
            raise error.within(str(name)) from None
        return aligned.image, aligned.face.score

    def _aligner(self) -> Aligner:
        if not hasattr(self._own, "aligner"):
            assert self._align is not None
            self._own.aligner = make_aligner(self._align, self._detector)
        aligner: Aligner = self._own.aligner
        return aligner


class ReadAhead(Iterator[_Result]):
    """function(item) for each item, in order, computed by threads before it is asked for.

    Args:
        function: called by several threads.
        items: asked for as needed.
        threads: 0 computes where it is asked for.
        ahead: results that may wait at a time.

    Attributes:
        waited: seconds that asking has taken so far: how much faster reading could make the rest.
    """

    def __init__(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, ahead: int = 8
    ) -> None:
        self.waited = 0.0
        self._results = map(function, items) if threads < 1 else _threaded(function, items, threads, ahead)

    def __next__(self) -> _Result:
        started = time.monotonic()
        try:
            return next(self._results)
        finally:
            self.waited += time.monotonic() - started


def _threaded(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, ahead: int
) -> Iterator[_Result]:
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= max(ahead, threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
