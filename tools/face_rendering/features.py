"""The features of a face in head units, drawn back to front into a sketch. Nothing here knows pixels or light."""

from __future__ import annotations

import numpy as np

from tools.face_rendering.people import Colour, Identity, Shot
from tools.face_rendering.sketch import Points, Sketch, ellipse, mirrored, shade, smooth


def face_outline(person: Identity, shot: Shot) -> Points:
    """Returns the outline of skull, cheeks and chin."""
    w, chin = person.width, person.chin + 0.05 * shot.open
    half = [
        (0.0, -1.08), (0.5 * w, -1.0), (0.9 * w, -0.66), (w, -0.15), (w * person.cheek, 0.22),
        (w * person.jaw, 0.62), (person.chin_width, chin - 0.06), (0.0, chin),
    ]  # fmt: skip
    return smooth(mirrored(half))


def draw_body(sketch: Sketch, person: Identity, clothes: Colour, collar: float) -> None:
    """Draws shoulders and neck, behind everything else."""
    neck = 0.62 * person.width
    sketch.add(
        smooth([(-2.2, 2.4), (-1.5, 1.45), (-neck, 1.2), (neck, 1.2), (1.5, 1.45), (2.2, 2.4)]),
        clothes,
        depth=0.0,
        lift=-0.3,
    )
    half = [(0.0, 0.5), (neck, 0.5), (neck, 1.15), (0.7 * neck, 1.25 + collar), (0.0, 1.3 + 1.5 * collar)]
    sketch.add(smooth(mirrored(half)), shade(person.skin, 0.8), depth=0.0, lift=-0.2)


def draw_back_hair(sketch: Sketch, person: Identity, shot: Shot) -> None:
    """Draws the hair that hangs behind the head."""
    w, side, length = person.width, person.hair_side + shot.hair_lift, person.hair_length
    if not person.is_bald and length > 0.0:
        half = [
            (0.0, -1.1),
            (0.7 * w + side, -0.85),
            (w + side + 0.05, -0.2),
            (w + side + 0.1, 0.6 * length),
            (0.85 * w + side, length),
            (0.0, length),
        ]
        sketch.add(smooth(mirrored(half)), shade(person.hair, 0.72), depth=0.0, lift=-0.35)


def draw_ears(sketch: Sketch, person: Identity) -> None:
    """Draws the ears unless long hair covers them."""
    if person.hair_side > 0.12 and person.hair_length > 0.3 and not person.is_bald:
        return
    x, size = person.width + person.ear_out, person.ear_size
    ear = smooth(
        [
            (x - 0.1, person.ear_y - size),
            (x + 0.07, person.ear_y - size),
            (x + 0.1, person.ear_y),
            (x, person.ear_y + size),
            (x - 0.1, person.ear_y + size),
        ]
    )
    sketch.add_pair(ear, shade(person.skin, 0.9), depth=0.0, lift=-0.1)
    inner = (ear - (x, person.ear_y)) * 0.5 + (x, person.ear_y)
    sketch.add_pair(inner, shade(person.skin, 0.72), depth=0.0, lift=-0.1)


def draw_hair(sketch: Sketch, person: Identity, shot: Shot) -> None:
    """Draws the hair above the forehead with a few lighter and darker strands."""
    if person.is_bald:
        return
    w, top, side, line = (
        person.width,
        person.hair_top + shot.hair_lift,
        person.hair_side + shot.hair_lift,
        person.hairline,
    )
    inner = [
        (-w, person.temple), (-0.86 * w, line + 0.3), (-0.5 * w, line + person.fringe_left), (0.0, line + person.peak),
        (0.5 * w, line + person.fringe_right), (0.86 * w, line + 0.3), (w, person.temple),
    ]  # fmt: skip
    outer = [
        (w + side, person.temple - 0.1), (0.98 * w + side, -0.72), (0.55 * w + 0.5 * side, -1.06 - top),
        (0.0, -1.14 - top),
        (-0.55 * w - 0.5 * side, -1.06 - top), (-0.98 * w - side, -0.72), (-w - side, person.temple - 0.1),
    ]  # fmt: skip
    sketch.add(smooth(inner + outer), person.hair, lift=0.04)
    start, end = np.asarray(inner), np.asarray(outer[::-1])
    for number, factor in ((1, 1.12), (2, 0.86), (3, 1.15), (4, 0.86), (5, 1.12)):
        bend = (start[number] * 0.4 + end[number] * 0.6) + (0.05 * (number - 3), -0.03)
        strand = smooth(
            [start[number] * 0.94 + end[number] * 0.06, bend, end[number] * 0.95 + start[number] * 0.05], closed=False
        )
        sketch.add(strand, shade(person.hair, factor), width=0.02, lift=0.05)


def draw_eyes(sketch: Sketch, person: Identity, shot: Shot) -> None:
    """Draws eyes, lids and brows; the iris is cut off by the lids."""
    w, upper = person.eye_width, person.eye_height * shot.lid
    lower = person.eye_height * min(0.75, shot.lid) * (1 - 0.25 * max(0.0, shot.smile))
    sin, cos = np.sin(person.eye_tilt), np.cos(person.eye_tilt)
    x = np.linspace(-1.0, 1.0, 11)
    arc = 1 - x**2
    lid = np.stack([x * w, -upper * arc], 1)
    white = np.concatenate([lid, np.stack([x[::-1] * w, lower * arc], 1)])
    crease = np.stack([x * w * 1.05, -(upper + 0.018 + 0.03 * person.lid_fold) * arc + 0.01], 1)
    socket = ellipse(0.0, -0.02, 1.25 * w, upper + 0.06)
    for side in (-1.0, 1.0):
        rotation = np.array([[cos, -side * sin], [side * sin, cos]]).T * (1.0, 1.0)
        place = (side * person.eye_x, person.eye_y)
        sketch.add(socket @ rotation + place, shade(person.skin, 0.93))
        sketch.add(white @ rotation + place, (236.0, 232.0, 228.0))
        gaze = (shot.gaze[0] * 0.3 * w, shot.gaze[1] * 0.25 * person.eye_height)
        for size, colour in (
            (1.0, shade(person.iris, 0.55)),
            (0.84, shade(person.iris, 1.15)),
            (0.42, (14.0, 12.0, 12.0)),
        ):
            iris = ellipse(gaze[0], gaze[1], person.iris_size * size, person.iris_size * size)
            open_at = np.maximum(0.0, 1 - (iris[:, 0] / w) ** 2)
            iris[:, 1] = np.clip(iris[:, 1], -upper * open_at, lower * open_at)
            sketch.add(iris @ rotation + place, colour)
        if shot.lid > 0.4:
            sketch.add(
                ellipse(gaze[0] + 0.022, gaze[1] - 0.022, 0.014, 0.014) @ rotation + place, (250.0, 250.0, 250.0)
            )
        sketch.add(
            lid @ rotation + place,
            shade(person.hair, 0.45) if sum(person.hair) < 450 else (70.0, 56.0, 50.0),
            width=0.032,
        )
        sketch.add(crease @ rotation + place, shade(person.skin, 0.74), width=0.016)
    _draw_brows(sketch, person, shot)


def _draw_brows(sketch: Sketch, person: Identity, shot: Shot) -> None:
    length, thick = person.brow_length, person.brow_thickness
    y = person.eye_y - person.brow_gap - shot.brow - 0.03 * max(0.0, shot.open)
    inner = (person.eye_x - 0.55 * length, y + 0.5 * person.brow_tilt * length)
    middle = (person.eye_x + 0.15 * length, y - person.brow_arch)
    outer = (person.eye_x + 0.75 * length, y - 0.5 * person.brow_tilt * length + 0.02)
    brow = smooth(
        [
            (inner[0], inner[1] - thick / 2),
            (middle[0], middle[1] - thick / 2),
            outer,
            (middle[0], middle[1] + thick / 2),
            (inner[0], inner[1] + thick / 2),
        ]
    )
    sketch.add_pair(brow, shade(person.hair, 0.7) if sum(person.hair) < 450 else shade(person.hair, 0.8), lift=0.03)


def draw_nose(sketch: Sketch, person: Identity) -> None:
    """Draws ridge, tip and nostrils; the tip stands out, so that a turned head moves it sideways."""
    tip, w, bridge = person.eye_y + person.nose_length, person.nose_width, person.nose_bridge
    side = smooth(
        [
            (bridge, person.eye_y - 0.02),
            (bridge * 0.9, tip - 0.5 * person.nose_length),
            (w * 0.9, tip - 0.06),
            (w, tip),
            (w * 0.6, tip + 0.05),
        ],
        closed=False,
    )
    sketch.add(np.concatenate([side, side[::-1] * (0.55, 1.0)]), shade(person.skin, 0.84), lift=0.08)
    low = 0.03 + 0.03 * person.nose_tip
    base = smooth(
        [
            (-w, tip),
            (-0.75 * w, tip + 0.045),
            (-0.3 * w, tip + 0.03),
            (0.0, tip + low + 0.02),
            (0.3 * w, tip + 0.03),
            (0.75 * w, tip + 0.045),
            (w, tip),
        ],
        closed=False,
    )
    sketch.add(base, shade(person.skin, 0.6), width=0.03, lift=0.1)
    sketch.add_pair(ellipse(0.45 * w, tip + 0.022, 0.26 * w, 0.022), shade(person.skin, 0.38), lift=0.12)
    sketch.add(
        smooth(
            [
                (-0.25 * bridge, person.eye_y),
                (0.25 * bridge, person.eye_y),
                (0.35 * w, tip - 0.04),
                (0.0, tip),
                (-0.35 * w, tip - 0.04),
            ]
        ),
        shade(person.skin, 1.07),
        lift=0.2,
    )


def draw_mouth(sketch: Sketch, person: Identity, shot: Shot) -> None:
    """Draws lips, teeth and the inside of an open mouth."""
    y, gap = person.mouth_y, 0.13 * shot.open
    w = person.mouth_width * (1 + 0.14 * shot.smile - 0.12 * shot.open)
    corner = y - 0.07 * shot.smile
    upper, lower, cupid = person.upper_lip * (1 - 0.15 * shot.smile), person.lower_lip, person.cupid
    top = [(-w, corner), (-0.32 * w, y - upper - cupid), (0.0, y - upper), (0.32 * w, y - upper - cupid), (w, corner)]
    middle = [(-w, corner), (-0.4 * w, y - 0.004), (0.0, y + 0.008), (0.4 * w, y - 0.004), (w, corner)]
    inner = [(-w, corner), (-0.4 * w, y + gap), (0.0, y + 1.1 * gap + 0.008), (0.4 * w, y + gap), (w, corner)]
    bottom = [
        (-w, corner),
        (-0.4 * w, y + gap + 0.85 * lower),
        (0.0, y + 1.1 * gap + lower),
        (0.4 * w, y + gap + 0.85 * lower),
        (w, corner),
    ]
    curves = [smooth(curve, closed=False) for curve in (top, middle, inner, bottom)]
    if shot.open > 0.05:
        sketch.add(np.concatenate([curves[1], curves[2][::-1]]), (70.0, 24.0, 26.0), lift=0.03)
        teeth = curves[1] + (0.0, 0.0)
        sketch.add(
            np.concatenate([teeth[4:-4], (teeth * (1, 0) + (0, y + 0.55 * gap))[4:-4][::-1]]),
            (238.0, 234.0, 226.0),
            lift=0.03,
        )
    sketch.add(np.concatenate([curves[0], curves[1][::-1]]), shade(person.lip, 0.88), lift=0.05)
    sketch.add(np.concatenate([curves[2], curves[3][::-1]]), person.lip, lift=0.05)
    if shot.open <= 0.05:
        sketch.add(curves[1], shade(person.lip, 0.45), width=0.022, lift=0.05)
    if person.fold > 0.5 or shot.smile > 0.6:
        fold = smooth([(person.nose_width + 0.03, y - 0.24), (w + 0.05, y - 0.1), (w + 0.07, y + 0.02)], closed=False)
        sketch.add_pair(fold, shade(person.skin, 0.78), width=0.02, lift=0.02)
