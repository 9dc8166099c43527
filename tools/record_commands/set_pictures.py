"""Pictures of a set: a sheet of its images, and how many images the identities have. Counts come from elsewhere."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.errors import DataError
from utils.files import whole_file
from utils.images import decode_image
from utils.recordio import RecordReader

ROWS, COLUMNS, TILE, GAP = 12, 8, 112, 2


def contact_sheet(reader: RecordReader, keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A row for each of twelve identities, evenly spread over the labels, with up to eight of its images.

    Args:
        reader: of the set.
        keys: of sound images, int64 (N,).
        labels: theirs, int (N,).

    Returns:
        uint8 (H, W, 3), RGB; images that do not decode are red.
    """
    present = np.unique(labels)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, min(ROWS, len(present))).astype(np.int64))]
    sheet = np.full((len(chosen) * (TILE + GAP) + GAP, COLUMNS * (TILE + GAP) + GAP, 3), 40, dtype=np.uint8)
    for row, label in enumerate(chosen.tolist()):
        own = keys[labels == label]
        for column, place in enumerate(np.unique(np.linspace(0, len(own) - 1, min(COLUMNS, len(own))).astype(int))):
            top, left = row * (TILE + GAP) + GAP, column * (TILE + GAP) + GAP
            sheet[top : top + TILE, left : left + TILE] = _tile(reader, int(own[place]))
        cv2.putText(sheet, str(label), (GAP + 3, row * (TILE + GAP) + 14), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 0), 1)
    return sheet


def _tile(reader: RecordReader, key: int) -> np.ndarray:
    try:
        image = decode_image(reader.sample(key)[1])
    except DataError:
        return np.full((TILE, TILE, 3), (255, 0, 0), dtype=np.uint8)
    scale = TILE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    scaled = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE, TILE, 3), dtype=np.uint8)
    tile[: scaled.shape[0], : scaled.shape[1]] = scaled
    return tile


def write_png(image: np.ndarray, path: Path) -> None:
    """Writes uint8 (H, W, 3) RGB as a PNG file."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with whole_file(path) as stream:
        stream.write(encoded.tobytes())


def draw_histogram(counts: np.ndarray, path: Path) -> None:
    """Draws how many identities have how many images, on logarithmic axes, as a PNG or SVG file.

    Args:
        counts: images of each identity, (C,).
        path: ends in .png or .svg.
    """
    from matplotlib.figure import Figure

    present = counts[counts > 0]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    largest = int(present.max())
    is_wide = largest > 40  # few different numbers are easier to read one by one
    edges = np.geomspace(1, largest + 1, 40).astype(np.int64) if is_wide else np.arange(present.min(), largest + 2)
    axes.hist(present, bins=(np.unique(edges) - 0.5).tolist(), color="#4477aa")
    axes.set_xscale("log" if is_wide else "linear")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.axvline(float(np.median(present)), color="#cc3311", label=f"median {np.median(present):g}")
    axes.set_xlabel("images of an identity")
    axes.set_ylabel("identities")
    axes.set_title(f"{len(present):,} identities, {int(present.sum()):,} images")
    axes.legend()
    with whole_file(path) as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=120)
