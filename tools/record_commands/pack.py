"""`pack`: images by identity -> record set in insightface's layout, in parallel, continued where it was interrupted."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sources.base import SourceError
from tools.borders import fill_borders
from tools.record_commands.image_lists import ImageList, list_images
from tools.record_commands.in_order import counted, in_order
from tools.record_commands.options import (
    IMAGE_FORMATS,
    add_command,
    add_output,
    count,
    prepare_output,
    quality,
    release_output,
    size,
)
from utils.command_line import Outcome, say
from utils.errors import DataError
from utils.files import write_text_whole
from utils.images import decode_image, encode_image
from utils.record_set import WrittenPart, write_record_set

PROGRESS = "train.pack.partial"  # what an interrupted run leaves beside the unfinished files
EXAMPLES = (
    "python -m tools.records pack photos data/mine",
    "python -m tools.records pack photos data/mine --size 112 --quality 95 --threads 8",
    "python -m tools.records pack list.lst data/mine --root photos",
    "python -m tools.records pack photos data/mine --reencode --format webp --quality 90",
)


@dataclass(frozen=True)
class Treatment:
    """What is done to every image.

    Attributes:
        size: (height, width) of all images.
        resize: bring images of another size to it; else they are refused.
        fills: fill black alignment borders, see tools.borders.
        reencode: encode every image anew; else those that need no change keep their bytes.
        image_format: "jpg", "png" or "webp", of what is encoded anew.
        quality: 1 .. 100, of what is encoded anew.
    """

    size: tuple[int, int]
    resize: bool
    fills: bool = False
    reencode: bool = False
    image_format: str = "jpg"
    quality: int = 95

    def __call__(self, data: bytes, path: Path) -> bytes:
        """The bytes to store for a file's bytes."""
        decoded = _decode(path, data)
        image = fill_borders(decoded) if self.fills else decoded
        if image.shape[:2] != self.size:
            if not self.resize:
                raise SourceError(
                    f"{path}: {image.shape[0]}x{image.shape[1]} (height x width), the first image is "
                    f"{self.size[0]}x{self.size[1]}: align the images, or add --size {self.size[0]} to resize them all"
                )
            image = resized(image, self.size)
        if image is decoded and not self.reencode:
            return data
        return encode_image(image, self.image_format, self.quality)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(commands, "pack", "image folder or list -> record set in insightface's layout", EXAMPLES, run)
    parser.add_argument(
        "images", type=Path,
        help="folder with one sub-folder of images per identity, or a list: .lst (key, label, path) or .txt (path, "
        "identity), separated by tabs",
    )  # fmt: skip
    add_output(parser)
    parser.add_argument("--root", type=Path, help="folder that a list's paths are below (default: the list's own)")
    parser.add_argument("--size", type=size, help="resize to SIZE or HEIGHTxWIDTH; without it all sizes must agree")
    parser.add_argument("--reencode", action="store_true", help="encode every image anew, not only changed ones")
    parser.add_argument("--format", choices=IMAGE_FORMATS, default="jpg", help="of what is encoded anew (default jpg)")
    parser.add_argument("--quality", type=quality, default=95, help="of what is encoded anew (default 95)")
    parser.add_argument("--fill-borders", action="store_true", help="fill black borders that aligning has left")
    parser.add_argument("--threads", type=count, default=2, help="decoding threads (default 2)")


def run(options: argparse.Namespace) -> Outcome:
    """Packs, or goes on packing."""
    if options.images.is_dir() and options.images.resolve() in options.output.resolve().parents:
        raise SourceError(
            f"{options.output}: lies in {options.images}, where every folder is an identity; choose another place"
        )
    images = list_images(options.images, options.root)
    if images.ignored:
        shown = ", ".join(images.ignored[:5]) + (" ..." if len(images.ignored) > 5 else "")
        say(options, f"{len(images.ignored)} entries are no images and are left out: {shown}")
    first = images.root / next(images.names())[1]
    treatment = Treatment(
        options.size or _decode(first, _read(first)[0]).shape[:2], options.size is not None, options.fill_borders,
        options.reencode, options.format, options.quality,
    )  # fmt: skip
    output: Path = options.output
    is_unfinished = (output / PROGRESS).is_file() and not (output / "property").is_file()
    lock = prepare_output(output, overwrite=options.overwrite or is_unfinished)
    try:
        continued = pack(images, output, treatment, options.threads)
    except (Exception, KeyboardInterrupt) as error:
        if (output / PROGRESS).is_file():
            say(options, f"what was packed so far stays in {output}: the same command goes on from there")
        raise error
    finally:
        release_output(output, lock)
    num_images, num_classes = len(images), len(images.counts)
    rec, (height, width) = output / "train.rec", treatment.size
    words = [f"{rec}: {num_images} images of {num_classes} identities"]
    words += [f"continued behind the first {continued} images of an interrupted run"] if continued else []
    empty = int((images.counts == 0).sum())
    words += [f"note: {empty} of the labels have no image: the list leaves these numbers out"] if empty else []
    if (height, width) != (112, 112):
        words.append(f"note: images are {height}x{width}; face nets take 112x112, aligned (--size 112 resizes)")
    facts = {
        "rec": rec, "images": num_images, "identities": num_classes, "height": height, "width": width,
        "empty_identities": empty, "ignored": len(images.ignored), "continued_after": continued,
        "bytes": rec.stat().st_size,
    }  # fmt: skip
    return Outcome("\n".join(words), facts)


def pack(images: ImageList, output: Path, treatment: Treatment, threads: int) -> int:
    """Packs a list of images into a folder that nobody else writes to.

    Returns:
        How many images an interrupted run had written already; 0 where it was begun anew.

    Raises:
        SourceError: an unreadable file, or one of another size.
        ImageError: a file that is no image, or damaged; names the file.
    """
    after, listing = _interrupted(output, images, treatment)
    if after is None:
        (output / PROGRESS).unlink(missing_ok=True)
    done = after.images if after else 0

    def load(named: tuple[int, str]) -> tuple[bytes, str, bytes]:
        label, name = named
        path = images.root / name
        data, stat = _read(path)
        return treatment(data, path), name, _fingerprint(label, name, stat)

    def stream() -> Iterator[tuple[bytes, str]]:
        loaded = in_order(load, images.names(done), threads)
        for data, name, fingerprint in counted(loaded, len(images), "pack", done=done):
            listing.update(fingerprint)
            yield data, name

    def saved(part: WrittenPart) -> None:
        content = {"treatment": asdict(treatment), "listing": listing.hexdigest(), "written": asdict(part)}
        write_text_whole(json.dumps(content), output / PROGRESS)

    write_record_set(output, images.counts.tolist(), stream(), treatment.size, after=after, saved=saved)
    (output / PROGRESS).unlink(missing_ok=True)
    return done


def _interrupted(output: Path, images: ImageList, treatment: Treatment) -> tuple[WrittenPart | None, Any]:
    """How far an interrupted run of the same work came, and the hash over what it packed.

    The same: equal treatment, and its images are the first ones now, by label, name, length and time of change.
    """
    fresh = hashlib.sha256()
    try:
        content = json.loads((output / PROGRESS).read_bytes())
        part = WrittenPart(**content["written"])
        plausible = 0 < part.images <= len(images) and content["treatment"] == json.loads(json.dumps(asdict(treatment)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # another's file, or one cut short
        return None, fresh
    listing = hashlib.sha256()
    try:
        for number, (label, name) in enumerate(images.names() if plausible else ()):
            if number == part.images:
                break
            listing.update(_fingerprint(label, name, os.stat(images.root / name)))
    except OSError:
        return None, fresh
    sizes = {"train.rec": part.rec_bytes, "train.idx": part.idx_bytes, "train.lst": part.lst_bytes}
    files = [(output / f"{name}.partial", size) for name, size in sizes.items()]
    whole = all(path.is_file() and path.stat().st_size >= size for path, size in files)
    return (part, listing) if whole and listing.hexdigest() == content["listing"] else (None, fresh)


def _fingerprint(label: int, name: str, stat: os.stat_result) -> bytes:
    return f"{label}\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape")


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        with path.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _decode(path: Path, data: bytes) -> np.ndarray:
    try:
        return decode_image(data)
    except DataError as error:
        raise error.within(str(path)) from None


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of the image that has the aspect of `size`, scaled to (height, width); uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    crop_height = min(height, max(1, round(width * size[0] / size[1])))
    crop_width = min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    middle = image[top : top + crop_height, left : left + crop_width]
    shrinks = crop_height > size[0] or crop_width > size[1]
    scaled: np.ndarray = cv2.resize(
        middle, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return scaled
