"""How a run's pixels become numbers, as JSON: beside its weights, and in dumps. Normalises nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.files import write_text_whole
from utils.images import ImageError, ImageFormat

IMAGE_FORMAT = "image_format.json"
_LARGEST = 256 << 20  # bytes; a mean image of 224x224x3 has 0.8 MB
_NUMBERS = {"height": int, "width": int, "channels": int, "mean": float, "std": float}


def to_json(image_format: ImageFormat) -> dict[str, Any]:
    """Plain JSON types; the mean image in base64 where there is one, else no such entry."""
    values = asdict(image_format)
    mean_image = values.pop("mean_image")
    return {**values, **({"mean_image": base64.b64encode(mean_image).decode("ascii")} if mean_image else {})}


def from_json(values: Any, where: str) -> ImageFormat:
    """Rebuilds a format from `to_json`'s result.

    Raises:
        ImageError: anything else, with `where`.
    """
    wrong = f"{where}: no image format that a run writes"
    if not isinstance(values, dict):
        raise ImageError(f"{wrong}: a {type(values).__name__}")
    try:
        numbers = {name: kind(values[name]) for name, kind in _NUMBERS.items()}
        mean_image = base64.b64decode(values.get("mean_image", ""), validate=True)
        found = ImageFormat(**numbers, mean_image=mean_image)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ImageError(f"{wrong}: {type(error).__name__}: {error}") from None
    if min(found.shape) < 1 or not 0 < found.std < float("inf"):
        raise ImageError(f"{wrong}: {found}")
    return found


def write_image_format(folder: Path, image_format: ImageFormat, normalization: str) -> None:
    """Writes image_format.json into a run's folder, whole or not at all."""
    values = {"normalization": normalization, **to_json(image_format)}
    write_text_whole(json.dumps(values, indent=1) + "\n", folder / IMAGE_FORMAT)


def read_image_format(folder: Path, normalization: str | None = None) -> ImageFormat | None:
    """The format that a run wrote into its folder; None where there is no such file, as of runs before 0.5.0.

    Args:
        folder: of the run.
        normalization: what it must have been made by; None takes any, another gives None.

    Raises:
        ImageError: a file that no run wrote.
    """
    path = folder / IMAGE_FORMAT
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise ImageError(f"{path}: {path.stat().st_size} bytes are no image format")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ImageError(f"{path}: cannot be read ({error}): put back the file of the run, or remove it") from None
    found = from_json(values, str(path))
    return found if normalization in (None, values.get("normalization")) else None
