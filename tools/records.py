"""Command line for record sets: pack an image folder, inspect a set. The formats themselves are utils' and sources'."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from sources.base import SourceError
from sources.folder import list_identities
from tools.borders import fill_borders
from tools.record_report import inspect_set, print_report
from utils.errors import DataError
from utils.images import decode_image, encode_jpeg
from utils.record_set import write_record_set

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_WINDOW = 256  # images in flight between the reading threads and the writer


def pack(
    images: Path,
    output: Path,
    *,
    size: tuple[int, int] | None,
    quality: int,
    threads: int,
    overwrite: bool,
    fills: bool = False,
) -> tuple[int, int]:
    """Packs identity folders into a record set in insightface's layout.

    Args:
        images: one sub-folder of images per identity; sorted names become labels 0, 1, ...
        output: folder for train.rec, train.idx, train.lst and property; created.
        size: (height, width) to bring every image to; None requires that all have the size of the first.
        quality: JPEG quality, 1 .. 100, of images that must be resized or filled; the others keep their bytes.
        threads: decoding threads.
        overwrite: replace a set that is already there.
        fills: fill black alignment borders, see tools.borders.

    Returns:
        (images, identities).

    Raises:
        SourceError: nothing to pack, an unreadable file, or a set already there.
        ImageError: a file that is no image, damaged, or of another size; names the file. Nothing is written then.
    """
    if not images.is_dir():
        raise SourceError(f"{images}: no such folder; give the folder that holds one sub-folder of images per identity")
    if (output / "train.rec").exists() and not overwrite:
        raise SourceError(f"{output}/train.rec is already there: choose another folder, or add --overwrite")
    names, files, ignored = list_identities(images)
    if ignored:
        shown = ", ".join(ignored[:5]) + (" ..." if len(ignored) > 5 else "")
        print(f"{len(ignored)} entries are no images and are left out: {shown}")
    paths = [f"{name}/{file}" for name, inside in zip(names, files, strict=True) for file in inside]
    if size is None:
        height, width = _decode(images / paths[0], (images / paths[0]).read_bytes()).shape[:2]
    else:
        height, width = size
    output.mkdir(parents=True, exist_ok=True)

    def load(path: str) -> tuple[bytes, str]:
        return _load(images / path, (height, width), resize=size is not None, quality=quality, fills=fills), path

    progress = tqdm(total=len(paths), unit=" images", desc="pack", disable=None)
    with progress:
        loaded = _in_order(load, paths, threads)
        stream = _counted(loaded, progress)
        write_record_set(output, [len(inside) for inside in files], stream, (height, width))
    return len(paths), len(names)


def _decode(path: Path, data: bytes) -> np.ndarray:
    try:
        return decode_image(data)
    except DataError as error:
        raise error.within(str(path)) from None


def _load(path: Path, size: tuple[int, int], *, resize: bool, quality: int, fills: bool) -> bytes:
    """The bytes to store: the file's own where nothing has to be done to the image, else a new JPEG."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    decoded = _decode(path, data)
    image = fill_borders(decoded) if fills else decoded
    if image.shape[:2] == size:
        return data if image is decoded else encode_jpeg(image, quality)
    if not resize:
        raise SourceError(
            f"{path}: {image.shape[0]}x{image.shape[1]} (height x width), the first image is {size[0]}x{size[1]}: "
            f"align the images, or add --size {size[0]} to resize them all"
        )
    return encode_jpeg(resized(image, size), quality)


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


def _in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """function(item) for each item, in order, computed ahead by threads (reading and decoding release the GIL)."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _WINDOW:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _counted(items: Iterable[_Item], progress: tqdm) -> Iterator[_Item]:
    for item in items:
        yield item
        progress.update()


def _size(text: str) -> tuple[int, int]:
    """'112' or '112x96' (height x width)."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and 0 < int(part) <= 8192 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels as 112 or HEIGHTxWIDTH, like 112x96")
    return int(parts[0]), int(parts[-1])


def _quality(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no JPEG quality: give a whole number in 1 .. 100")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.records", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="image folder (one sub-folder per identity) -> record set")
    packing.add_argument("images", type=Path, help="folder with one sub-folder of images per identity")
    packing.add_argument("output", type=Path, help="folder for train.rec, train.idx, train.lst and property")
    packing.add_argument("--size", type=_size, help="resize to SIZE or HEIGHTxWIDTH; without it all sizes must agree")
    packing.add_argument("--quality", type=_quality, default=95, help="JPEG quality of changed images (default 95)")
    packing.add_argument("--fill-borders", action="store_true", help="fill black borders that aligning has left")
    packing.add_argument("--threads", type=int, default=2, help="decoding threads (default 2)")
    packing.add_argument("--overwrite", action="store_true", help="replace a set that is already there")
    inspecting = commands.add_parser("inspect", help="counts, layout, sizes and damage of a record set")
    inspecting.add_argument("set", type=Path, help="folder with train.rec, or a .rec file")
    inspecting.add_argument("--decode", type=int, default=1000, help="images to decode, evenly spread; 0 none, -1 all")
    inspecting.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 where a set is damaged, 2 where the command cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "pack":
            images, identities = pack(
                options.images,
                options.output,
                size=options.size,
                quality=options.quality,
                threads=max(1, options.threads),
                overwrite=options.overwrite,
                fills=options.fill_borders,
            )
            print(f"{options.output / 'train.rec'}: {images} images of {identities} identities")
            size = (options.output / "property").read_text().strip().split(",")[1:]
            if size != ["112", "112"]:
                print(f"note: images are {'x'.join(size)}; face nets take 112x112, aligned (--size 112 resizes)")
            return 0
        report = inspect_set(options.set, decode=options.decode)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report)
    return 1 if report.damage else 0


if __name__ == "__main__":
    sys.exit(main())
