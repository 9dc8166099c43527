"""From outlines to pixels: pose, painting, skin texture, light, camera. The only part that touches images."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.face_rendering import accessories, features
from tools.face_rendering.people import Identity, Shot, identity_of, shot_of
from tools.face_rendering.sketch import Sketch, ellipse

SIZE = 112
_SUPERSAMPLING = 2  # outlines are painted on twice the size and averaged: cheaper than it looks, and free of steps
_SHIFT = 4  # OpenCV draws at 1/16 pixel
_TEXTURE = 96
Image = NDArray[np.uint8]


def render_face(seed: int, identity: int, image: int) -> tuple[Image, int]:
    """Renders one image of one person: a pure function of its arguments, the same bytes on every call.

    Args:
        seed: which population of faces; at least 0.
        identity: the person's number in it; at least 0.
        image: the image's number; at least 0.

    Returns:
        The image, uint8 (112, 112, 3) RGB, and the JPEG quality in [45, 95] it should be stored with.
    """
    person = _person(seed, identity)
    shot = shot_of(seed, identity, image, person)
    rng = np.random.default_rng(shot.pixel_seed)
    camera = _Camera(person, shot)
    canvas = _background(rng)
    camera.paint(_scene(person, shot, rng), canvas)
    small = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    lit = small * (_skin_texture(person, camera) * _relief(person, camera) * _light(person, shot, camera))[:, :, None]
    return _develop(lit.astype(np.float32), shot, rng), shot.quality


@lru_cache(maxsize=64)
def _person(seed: int, identity: int) -> Identity:
    return identity_of(seed, identity)


def _scene(person: Identity, shot: Shot, rng: np.random.Generator) -> Sketch:
    sketch = Sketch()
    clothes = (float(rng.uniform(20, 235)), float(rng.uniform(20, 235)), float(rng.uniform(20, 235)))
    features.draw_back_hair(sketch, person, shot)
    features.draw_body(sketch, person, clothes, float(rng.uniform(0.0, 0.2)))
    features.draw_ears(sketch, person)
    sketch.add(features.face_outline(person, shot), person.skin, depth=0.0)
    if shot.shows_beard:
        accessories.draw_beard(sketch, person, shot)
    features.draw_nose(sketch, person)
    features.draw_mouth(sketch, person, shot)
    features.draw_eyes(sketch, person, shot)
    features.draw_hair(sketch, person, shot)
    if shot.shows_glasses and shot.occluder != "sunglasses":
        accessories.draw_glasses(sketch, person, dark=False)
    accessories.draw_occluder(sketch, person, shot, rng)
    return sketch


class _Camera:
    """Projects head units to pixels: the head turns about its middle, then weak perspective."""

    def __init__(self, person: Identity, shot: Shot) -> None:
        sy, cy, sp, cp = np.sin(shot.yaw), np.cos(shot.yaw), np.sin(shot.pitch), np.cos(shot.pitch)
        sr, cr = np.sin(shot.roll), np.cos(shot.roll)
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        self.rotation = (roll @ pitch @ yaw).T
        self.width = person.width
        self.scale = shot.scale
        self.center = np.array([SIZE / 2 + shot.shift[0], SIZE / 2 + 2.0 + shot.shift[1]])

    def project(self, points: NDArray[np.float64], depth: object, lift: object) -> NDArray[np.float64]:
        """Returns pixels (n, 2) of a 112 pixel image for points (n, 2) in head units."""
        surface = 1 - (points[:, 0] / (1.08 * self.width)) ** 2 - (points[:, 1] / 1.2) ** 2
        z = np.asarray(depth) * 0.85 * self.width * np.sqrt(np.maximum(surface, 0.01)) + np.asarray(lift)
        turned = np.column_stack([points, z]) @ self.rotation
        near = self.scale / (1 - 0.14 * turned[:, 2:])
        return np.asarray(turned[:, :2] * near + self.center)

    def paint(self, sketch: Sketch, canvas: Image) -> None:
        """Paints the outlines in their order onto a canvas of any size."""
        factor = canvas.shape[0] / SIZE
        counts = [len(points) for points in sketch.points]
        depth, lift = np.repeat(sketch.depths, counts), np.repeat(sketch.lifts, counts)
        pixels = self.project(np.concatenate(sketch.points), depth, lift)
        fixed = np.rint((pixels * factor - 0.5) * (1 << _SHIFT)).astype(np.int32)
        start = 0
        for count, colour, width in zip(counts, sketch.colours, sketch.widths, strict=True):
            outline = [fixed[start : start + count]]
            start += count
            if width:
                thickness = max(1, round(width * self.scale * factor))
                cv2.polylines(canvas, outline, False, colour, thickness, cv2.LINE_AA, _SHIFT)
            else:
                cv2.fillPoly(canvas, outline, colour, cv2.LINE_AA, _SHIFT)


def _background(rng: np.random.Generator) -> Image:
    tint = rng.uniform(40, 215) + rng.normal(0, 22, 3)
    cells = np.clip(tint + rng.normal(0, 24, (4, 4, 1)) + rng.normal(0, 8, (4, 4, 3)), 0, 255).astype(np.uint8)
    side = SIZE * _SUPERSAMPLING
    return np.asarray(cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


@lru_cache(maxsize=16)
def _texture_of(seed: int, freckles: int, moles: int) -> NDArray[np.float32]:
    """A person's own skin as factors around 1 on a square of 2.4 head units: a noise field, freckles and moles."""
    rng = np.random.default_rng(seed)
    field = np.zeros((_TEXTURE, _TEXTURE), np.float32)
    for sigma, amount in ((1.2, 0.10), (4.0, 0.35), (11.0, 0.8)):
        noise = rng.standard_normal((_TEXTURE, _TEXTURE)).astype(np.float32)
        field += amount * cv2.GaussianBlur(noise, (0, 0), sigma)
    texture = (1 + 1.0 * field).astype(np.float32)
    for number in range(freckles + moles):
        spread, strength = ((15, 5), 0.82) if number < freckles else ((18, 20), 0.45)
        x, y = rng.normal(_TEXTURE / 2, spread[0]), rng.normal(_TEXTURE * 0.56, spread[1])
        radius = rng.uniform(0.5, 1.0) if number < freckles else rng.uniform(0.9, 1.5)
        spot = tuple(round(value * 16) for value in (x, y))
        cv2.circle(texture, spot, round(radius * 16), strength, -1, cv2.LINE_8, 4)
    texture = cv2.GaussianBlur(texture, (0, 0), 0.7)
    across = np.linspace(-1.2, 1.2, _TEXTURE, dtype=np.float32)
    inside = np.clip(4 * (1 - (across / 0.8) ** 2 - (across[:, None] / 1.05) ** 2), 0, 1)
    return np.asarray(1 + (np.clip(texture, 0.3, 1.5) - 1) * inside, dtype=np.float32)


def _skin_texture(person: Identity, camera: _Camera) -> NDArray[np.float32]:
    texture = _texture_of(person.texture_seed, person.freckles, person.moles)
    corners = camera.project(np.array([(0.0, 0.0), (0.4, 0.0), (0.0, 0.5)]), 1.0, 0.0)
    step = _TEXTURE / 2.4
    source = np.array([(0.0, 0.0), (0.4, 0.0), (0.0, 0.5)]) * step + _TEXTURE / 2
    matrix = cv2.getAffineTransform(source.astype(np.float32), corners.astype(np.float32))
    warped = cv2.warpAffine(
        texture, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0
    )
    return np.asarray(warped, dtype=np.float32)


def _relief(person: Identity, camera: _Camera) -> NDArray[np.float32]:
    """Soft shadows and lights that follow the person's own geometry: eye sockets, nose, cheeks, below lip and chin."""
    sketch, grey = Sketch(), (112.0, 0.0, 0.0)
    tip = person.eye_y + person.nose_length
    sketch.add_pair(ellipse(person.eye_x * 0.8, person.eye_y - 0.07, 0.2, 0.11), (108.0, 0.0, 0.0))
    sketch.add(
        ellipse(0.0, 0.5 * (person.eye_y + tip), person.nose_bridge * 0.7, 0.5 * person.nose_length),
        (140.0, 0.0, 0.0),
        lift=0.15,
    )
    sketch.add(ellipse(0.0, tip + 0.08, person.nose_width, 0.05), grey)
    sketch.add_pair(ellipse(0.62 * person.width, 0.2, 0.14, 0.12), (139.0, 0.0, 0.0))
    sketch.add(ellipse(0.0, person.mouth_y + person.lower_lip + 0.06, 0.6 * person.mouth_width, 0.04), grey)
    sketch.add(ellipse(0.0, 1.28, 0.6, 0.18), (86.0, 0.0, 0.0), depth=0.0)
    sketch.add(ellipse(0.0, -0.62, 0.45 * person.width, 0.15), (136.0, 0.0, 0.0))
    relief = np.full((SIZE // 2, SIZE // 2), 128, np.uint8)
    camera.paint(sketch, relief)
    blurred = cv2.GaussianBlur(relief, (0, 0), 1.8)
    return np.asarray(
        cv2.resize(blurred, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) * np.float32(1 / 128), dtype=np.float32
    )


def _light(person: Identity, shot: Shot, camera: _Camera) -> NDArray[np.float32]:
    """Lambert's law on an ellipsoid in the head's place, on a coarse grid: light varies slowly."""
    place = (np.arange(28, dtype=np.float32) + 0.5) * (SIZE / 28)
    u = (place - camera.center[0]) / (1.3 * shot.scale * person.width)
    v = (place[:, None] - camera.center[1]) / (1.3 * shot.scale)
    front = np.sqrt(np.maximum(1 - u**2 - v**2, 0.0))
    side = np.clip(u, -1, 1) * shot.light[0] + np.clip(v, -1, 1) * shot.light[1]
    light = shot.brightness * (1 + shot.contrast * (0.9 * side + 0.35 * (front - 0.7)))
    return np.asarray(cv2.resize(light.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[np.float32]:
    """Normal noise drawn once; each image takes a stretch of it from a place of its own, which is much cheaper."""
    return np.random.default_rng(20).standard_normal(1 << 20).astype(np.float32)


def _develop(lit: NDArray[np.float32], shot: Shot, rng: np.random.Generator) -> Image:
    """The camera: colour cast, saturation, gamma, blur and sensor noise."""
    grey = cv2.transform(lit, np.array([[0.299, 0.587, 0.114]], np.float32))[:, :, None]
    picture = (grey + shot.saturation * (lit - grey)) * np.asarray(shot.cast, np.float32)
    if shot.blur > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), shot.blur)
    levels = (255 * (np.arange(256) / 255) ** shot.gamma).astype(np.uint8)
    exposed = levels[np.clip(picture, 0, 255).astype(np.uint8)]
    start = int(rng.integers((1 << 20) - exposed.size))
    noise = _noise_bank()[start : start + exposed.size].reshape(exposed.shape)
    return np.clip(exposed + shot.noise * noise, 0, 255).astype(np.uint8)
