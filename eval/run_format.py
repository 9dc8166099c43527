"""How the run that wrote some weights normalised its images, for who feeds them again. Reads one file, no weights."""

from __future__ import annotations

from pathlib import Path

from eval.model_metadata import EmbedderError
from utils.image_format_file import IMAGE_FORMAT, read_image_format
from utils.images import FACE, ImageError, ImageFormat


def format_beside(weights: Path) -> ImageFormat:
    """The run's image format from image_format.json beside its weights; FACE where there is none.

    Raises:
        EmbedderError: a file that no run wrote.
    """
    try:
        return read_image_format(weights.parent) or FACE
    except ImageError as error:
        raise EmbedderError(str(error)) from error


def require_face_pixels(weights: Path) -> None:
    """Refuses weights of a run that was taught other pixels than faces are given as, for files that can say no other.

    Raises:
        EmbedderError: how the run normalised, and what to do.
    """
    found = format_beside(weights)
    if (found.mean, found.std, found.mean_image) != (FACE.mean, FACE.std, b""):
        mean = "its mean image" if found.mean_image else f"{found.mean:g}"
        raise EmbedderError(
            f"{weights}: the run normalised pixels as (x - {mean}) / {found.std:g} ({IMAGE_FORMAT} beside it), and "
            f"exported files are fed (x - {FACE.mean}) / {FACE.std}: train with normalization=symmetric to export"
        )
