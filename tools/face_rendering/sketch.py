"""Pencil and paper: smooth outlines in head units, collected in painting order. Nothing here knows what a face is."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tools.face_rendering.people import Colour

Points = NDArray[np.float64]


class Sketch:
    """A list of outlines in painting order: points (n, 2) in head units, a colour, and where they lie in depth."""

    def __init__(self) -> None:
        self.points: list[Points] = []
        self.colours: list[Colour] = []
        self.widths: list[float] = []
        self.depths: list[float] = []
        self.lifts: list[float] = []

    def add(self, points: Points, colour: Colour, *, width: float = 0.0, depth: float = 1.0, lift: float = 0.0) -> None:
        """Adds an outline; ``width`` > 0 draws an open line of that width, else the inside is filled.

        ``depth`` 1 lays it on the surface of the head, 0 in the plane through its middle; ``lift`` moves it towards
        the camera.
        """
        self.points.append(points)
        self.colours.append(colour)
        self.widths.append(width)
        self.depths.append(depth)
        self.lifts.append(lift)

    def add_pair(
        self, points: Points, colour: Colour, *, width: float = 0.0, depth: float = 1.0, lift: float = 0.0
    ) -> None:
        """Adds an outline and its mirror image on the other side of the face."""
        self.add(points, colour, width=width, depth=depth, lift=lift)
        self.add(points * (-1.0, 1.0), colour, width=width, depth=depth, lift=lift)


@cache
def _spline(num_points: int, per_segment: int, closed: bool) -> Points:
    """Catmull-Rom as one matrix, so that a smooth curve costs a single small product."""
    segments = num_points if closed else num_points - 1
    basis = np.zeros((segments * per_segment + (not closed), num_points))
    for row in range(len(basis)):
        segment = min(row // per_segment, segments - 1)
        t = row / per_segment - segment
        weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
        for offset, weight in enumerate(weights):
            point = segment + offset - 1
            point = point % num_points if closed else min(max(point, 0), num_points - 1)
            basis[row, point] += weight / 2
    return basis


def smooth(points: object, per_segment: int = 4, *, closed: bool = True) -> Points:
    """Returns the smooth curve through points (n, 2): (n * per_segment, 2), one more where it is open."""
    array = np.asarray(points, dtype=np.float64)
    return _spline(len(array), per_segment, closed) @ array


def mirrored(half: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Closes a right half (from top to bottom) with its left one; points on the middle line are not repeated."""
    return half + [(-x, y) for x, y in reversed(half) if x != 0.0]


_CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], 1
)


def ellipse(x: float, y: float, width: float, height: float) -> Points:
    """Returns an ellipse (20, 2) around (x, y) with these half axes."""
    return _CIRCLE * (width, height) + (x, y)


def shade(colour: Colour, factor: float) -> Colour:
    """Returns the colour made darker (factor < 1) or lighter, kept within [0, 255]."""
    return min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor)
