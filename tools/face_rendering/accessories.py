"""What is on a face without being the face: beards, glasses, things in front of it. Outlines only, no pixels."""

from __future__ import annotations

import numpy as np

from tools.face_rendering.people import Colour, Identity, Shot
from tools.face_rendering.sketch import Sketch, ellipse, mirrored, shade, smooth


def draw_beard(sketch: Sketch, person: Identity, shot: Shot) -> None:
    """Draws the beard below the mouth's layer, so that lips stay visible."""
    y, w, chin = person.mouth_y, person.mouth_width, person.chin + 0.05 * shot.open
    if person.beard in ("full", "stubble"):
        colour = shade(person.hair, 0.85) if person.beard == "full" else _blend(person.skin, person.hair, 0.25)
        outer = [
            (0.99 * person.width, 0.1),
            (0.96 * person.width * person.jaw, 0.62),
            (person.chin_width, chin - 0.02),
            (0.0, chin + 0.03),
        ]
        inner = [
            (0.0, y - person.upper_lip - 0.05),
            (0.8 * w, y - 0.08),
            (1.35 * w, y - 0.06),
            (0.86 * person.width, 0.12),
        ]
        half = smooth(np.asarray(outer + inner))
        sketch.add_pair(half, colour, lift=0.01)
    elif person.beard == "goatee":
        half_goatee = [(0.0, y + 0.1), (0.6 * w, y + 0.12), (0.55 * w, chin - 0.06), (0.0, chin + 0.02)]
        sketch.add(smooth(mirrored(half_goatee)), shade(person.hair, 0.85), lift=0.02)
    if person.beard in ("full", "moustache"):
        half_lip = [(0.0, y - 0.13), (0.8 * w, y - 0.08), (1.12 * w, y + 0.03), (0.5 * w, y - 0.02), (0.0, y - 0.045)]
        sketch.add(smooth(mirrored(half_lip)), shade(person.hair, 0.8), lift=0.06)


def draw_glasses(sketch: Sketch, person: Identity, *, dark: bool) -> None:
    """Draws frames around the eyes; ``dark`` fills the lenses, which hides the eyes."""
    w, h, y = person.lens_width, person.lens_height, person.eye_y + 0.02
    unit = ellipse(0.0, 0.0, 1.0, 1.0)
    # a power below one pushes the circle towards a rectangle: the frame's shape is the person's own
    lens = np.sign(unit) * np.abs(unit) ** person.lens_roundness * (w, h) + (max(person.eye_x, w + 0.04), y)
    if dark:
        sketch.add_pair(lens, (28.0, 26.0, 30.0), lift=0.22)
    ring = np.concatenate([lens, lens[:1]])
    sketch.add_pair(ring, person.frame, width=0.035, lift=0.22)
    inner = float(lens[:, 0].min())
    bridge = smooth([(-inner, y - 0.02), (0.0, y - 0.05), (inner, y - 0.02)], closed=False)
    sketch.add(bridge, person.frame, width=0.035, lift=0.26)
    sketch.add_pair(
        np.array([(float(lens[:, 0].max()), y - 0.03), (person.width + 0.02, y - 0.06)]),
        person.frame,
        width=0.03,
        lift=0.02,
    )


def draw_occluder(sketch: Sketch, person: Identity, shot: Shot, rng: np.random.Generator) -> None:
    """Draws what stands in front of the face in this image, if anything does; its colours are the image's own."""
    colour: Colour = (float(rng.uniform(20, 235)), float(rng.uniform(20, 235)), float(rng.uniform(20, 235)))
    w = person.width
    if shot.occluder == "sunglasses":
        draw_glasses(sketch, person, dark=True)
    elif shot.occluder == "mask":
        half = [(0.0, 0.2), (0.5 * w, 0.24), (0.98 * w, 0.1), (w * person.jaw, 0.66), (0.0, person.chin + 0.06)]
        sketch.add(smooth(mirrored(half)), colour, lift=0.12)
        sketch.add(
            smooth([(-0.7 * w, 0.5), (0.0, 0.55), (0.7 * w, 0.5)], closed=False),
            shade(colour, 0.8),
            width=0.03,
            lift=0.14,
        )
    elif shot.occluder == "cap":
        brim = float(rng.uniform(-0.55, -0.45))
        half_cap = [(0.0, -1.5), (0.8 * w, -1.35), (1.16 * w, -0.85), (1.12 * w, brim), (0.0, brim - 0.1)]
        sketch.add(smooth(mirrored(half_cap)), colour, lift=0.08)
        half_brim = [(0.0, brim - 0.16), (0.9 * w, brim - 0.08), (1.0 * w, brim + 0.04), (0.0, brim + 0.06)]
        sketch.add(smooth(mirrored(half_brim)), shade(colour, 0.7), lift=0.3)
    elif shot.occluder == "bar":
        angle, x, y = rng.uniform(0, np.pi), rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.9)
        along = np.array([np.cos(angle), np.sin(angle)])
        line = np.stack([(x, y) - 4 * along, (x, y) + 4 * along])
        sketch.add(line, colour, width=float(rng.uniform(0.12, 0.3)), depth=0.0, lift=1.0)
    elif shot.occluder == "blob":
        place = np.array([rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.8), rng.uniform(-0.5, 0.9)])
        turn = np.linspace(0, 2 * np.pi, 7, endpoint=False)
        radius = rng.uniform(0.2, 0.5, 7)
        sketch.add(
            smooth(place + np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)), colour, depth=0.0, lift=0.9
        )


def _blend(first: Colour, second: Colour, share: float) -> Colour:
    return (
        first[0] * (1 - share) + second[0] * share,
        first[1] * (1 - share) + second[1] * share,
        first[2] * (1 - share) + second[2] * share,
    )
