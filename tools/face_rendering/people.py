"""Who is drawn and how the photograph is taken: every number of a face as a pure function of seeds. No pixels here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]

SKIN = ((250, 222, 200), (240, 200, 170), (222, 174, 138), (196, 144, 104), (150, 102, 70), (104, 70, 50))
HAIR = (
    (24, 20, 20),
    (52, 34, 24),
    (92, 60, 36),
    (134, 90, 48),
    (196, 156, 92),
    (150, 66, 34),
    (150, 148, 146),
    (226, 220, 210),
)
IRIS = ((62, 36, 20), (98, 62, 30), (122, 98, 46), (80, 112, 66), (84, 128, 166), (112, 124, 134))
FRAMES = ((26, 24, 26), (88, 52, 30), (140, 30, 40), (40, 60, 120), (170, 150, 110))
OCCLUDERS = ("bar", "mask", "cap", "sunglasses", "blob")


@dataclass(frozen=True)
class Identity:
    """What stays the same in every image of one person.

    Lengths are in head units: x to the right, y down, the origin between eyes and nose, the skull's top near y = -1.1
    and the chin near y = 1. Colours are RGB in [0, 255].
    """

    width: float
    cheek: float
    jaw: float
    chin_width: float
    chin: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    lid_fold: float
    iris_size: float
    iris: Colour
    brow_gap: float
    brow_length: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    nose_bridge: float
    nose_tip: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    cupid: float
    lip: Colour
    ear_size: float
    ear_y: float
    ear_out: float
    skin: Colour
    hair: Colour
    is_bald: bool
    hair_top: float
    hair_side: float
    hair_length: float
    hairline: float
    fringe_left: float
    fringe_right: float
    peak: float
    temple: float
    beard: str
    wears_glasses: bool
    lens_width: float
    lens_height: float
    lens_roundness: float
    frame: Colour
    fold: float
    texture_seed: int
    freckles: int
    moles: int


@dataclass(frozen=True)
class Shot:
    """What changes from image to image: pose (radians), expression, light, camera and what stands in front.

    ``scale`` is in pixels per head unit of a 112 pixel image, ``shift`` in pixels, ``blur`` the Gaussian's sigma
    in pixels, ``noise`` its standard deviation in grey levels.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    shift: tuple[float, float]
    smile: float
    open: float
    lid: float
    brow: float
    gaze: tuple[float, float]
    light: tuple[float, float]
    contrast: float
    brightness: float
    gamma: float
    cast: Colour
    saturation: float
    blur: float
    noise: float
    quality: int
    occluder: str | None
    shows_glasses: bool
    shows_beard: bool
    hair_lift: float
    pixel_seed: int


def identity_of(seed: int, identity: int) -> Identity:
    """Returns the person with this number: the same one for the same (seed, identity), wherever it is asked for."""
    rng = np.random.default_rng((seed, identity, 0))
    u = rng.uniform
    skin = _mix(rng, SKIN, 7.0)
    is_bald = bool(u() < 0.07)
    hair = _mix(rng, HAIR, 9.0, adjacent=False)
    lip_depth = u(0.0, 0.55)
    lip = _clip(
        0.9 * np.asarray(skin) * (1 - lip_depth) + lip_depth * np.array([176, 62, 74]) - np.array([4.0, 26.0, 22.0])
    )
    return Identity(
        width=u(0.66, 0.84), cheek=u(0.9, 1.02), jaw=u(0.66, 0.92), chin_width=u(0.2, 0.46), chin=u(0.9, 1.08),
        eye_x=u(0.27, 0.39), eye_y=u(-0.2, -0.04), eye_width=u(0.115, 0.18), eye_height=u(0.045, 0.095),
        eye_tilt=u(-0.2, 0.24),
        lid_fold=u(0.0, 1.0), iris_size=u(0.062, 0.084), iris=_mix(rng, IRIS, 9.0, adjacent=False),
        brow_gap=u(0.13, 0.24), brow_length=u(0.17, 0.27), brow_thickness=u(0.022, 0.068), brow_arch=u(0.0, 0.1),
        brow_tilt=u(-0.2, 0.2),
        nose_length=u(0.3, 0.52), nose_width=u(0.1, 0.2), nose_bridge=u(0.035, 0.08), nose_tip=u(0.0, 1.0),
        mouth_y=u(0.52, 0.68), mouth_width=u(0.2, 0.34), upper_lip=u(0.03, 0.08),
        lower_lip=u(0.04, 0.11), cupid=u(0.0, 0.035), lip=lip,
        ear_size=u(0.15, 0.27), ear_y=u(-0.1, 0.14), ear_out=u(0.0, 0.1), skin=skin, hair=hair, is_bald=is_bald,
        hair_top=u(0.02, 0.3), hair_side=u(0.0, 0.22), hair_length=u(-0.3, 1.5), hairline=u(-0.82, -0.5),
        fringe_left=u(-0.14, 0.2), fringe_right=u(-0.14, 0.2), peak=u(-0.12, 0.14), temple=u(-0.35, 0.25),
        beard=str(rng.choice(["none", "none", "none", "none", "stubble", "moustache", "goatee", "full"])),
        wears_glasses=bool(u() < 0.25), lens_width=u(0.19, 0.26), lens_height=u(0.12, 0.22), lens_roundness=u(0.5, 1.0),
        frame=_colour(FRAMES[int(rng.integers(len(FRAMES)))]), fold=u(0.0, 1.0),
        texture_seed=int(rng.integers(2**31)), freckles=int(rng.integers(0, 70)) if u() < 0.45 else 0,
        moles=int(rng.integers(0, 4)),
    )  # fmt: skip


def shot_of(seed: int, identity: int, image: int, person: Identity) -> Shot:
    """Returns the circumstances of one image; a pure function of its arguments."""
    rng = np.random.default_rng((seed, identity, image + 1))
    u, normal = rng.uniform, rng.normal
    angle = u(0, 2 * np.pi)
    return Shot(
        yaw=float(np.clip(normal(0, 0.2), -0.45, 0.45)), pitch=float(np.clip(normal(0, 0.13), -0.3, 0.3)),
        roll=float(np.clip(normal(0, 0.1), -0.28, 0.28)), scale=u(39, 46), shift=(u(-4, 4), u(-4, 4)),
        smile=u(-0.3, 1.0), open=max(0.0, u(-1.0, 1.0)), lid=u(0.6, 1.2) if u() < 0.95 else 0.15, brow=normal(0, 0.02),
        gaze=(u(-1, 1), u(-0.5, 0.5)),
        light=(float(np.cos(angle)), float(np.sin(angle))), contrast=u(0.05, 0.55),
        brightness=u(0.7, 1.2), gamma=u(0.7, 1.4),
        cast=(u(0.86, 1.14), u(0.93, 1.07), u(0.86, 1.14)), saturation=u(0.4, 1.1) if u() < 0.93 else 0.0,
        blur=u(0.0, 0.9) if u() < 0.8 else u(0.9, 1.5), noise=u(1.0, 7.0), quality=int(rng.integers(45, 96)),
        occluder=str(rng.choice(OCCLUDERS)) if u() < 0.16 else None,
        shows_glasses=bool(u() < (0.7 if person.wears_glasses else 0.08)), shows_beard=bool(u() < 0.85),
        hair_lift=normal(0, 0.025), pixel_seed=int(rng.integers(2**31)),
    )  # fmt: skip


def _colour(values: object) -> Colour:
    red, green, blue = (float(value) for value in cast("tuple[float, float, float]", values))
    return red, green, blue


def _clip(values: NDArray[np.float64]) -> Colour:
    return _colour(np.clip(values, 0, 255))


def _mix(
    rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...], spread: float, *, adjacent: bool = True
) -> Colour:
    """A colour between two entries of a palette; ``adjacent`` where the palette is a scale, like skin tones."""
    if adjacent:
        place = rng.uniform(0, len(palette) - 1)
        first, share = min(int(place), len(palette) - 2), place - int(place)
        second = first + 1
    else:
        first, second = (int(value) for value in rng.integers(len(palette), size=2))
        share = rng.uniform(0, 0.35)
    mixed = (1 - share) * np.asarray(palette[first], dtype=np.float64) + share * np.asarray(
        palette[second], dtype=np.float64
    )
    return _clip(mixed + rng.normal(0, spread, 3))
