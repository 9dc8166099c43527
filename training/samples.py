"""Looks at a sample of what a run will read, and tries to write where it will write. `--check` only; leaves nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dataset import Source
from eval.pairs import PairSet
from utils.config import Config
from utils.errors import DataError
from utils.files import sync_folder

IMAGES = 256  # of the training data
PAIR_IMAGES = 64  # of each verification set
COMPARED_SECONDS = 8.0  # that looking for verification images among the training images may take
COMPARED_IMAGES = 100_000  # of the training data, at most
_GREY, _BLANK = 4, 4  # grey values: largest difference of the channels, smallest spread of an image
_SHOWN = 3
_WRITTEN = 32 << 20  # bytes written to see how fast the disk is


def look_at_images(source: Source, config: Config) -> tuple[list[str], list[str]]:
    """Reads images drawn over the whole set, the first and the last among them.

    Returns:
        Findings and problems, in lines.
    """
    chosen = spread(len(source), IMAGES)
    failures: list[str] = []
    labels_off = grey = 0
    blank: list[int] = []
    start = time.perf_counter()
    for index in chosen:
        try:
            image, label = source.read(index)
        except (DataError, OSError) as error:
            failures.append(f"image {index}: {error}")
            continue
        labels_off += not 0 <= label < source.num_classes
        values = image.astype(np.int16)
        grey += values.shape[2] == 3 and int((values.max(2) - values.min(2)).max()) <= _GREY
        if int(values.max()) - int(values.min()) <= _BLANK:
            blank.append(index)
    each = (time.perf_counter() - start) / len(chosen)
    problems = []
    if failures and config.bad_records == "stop":
        problems.append(
            f"rec: {len(failures)} of {len(chosen)} images cannot be read: {'; '.join(failures[:_SHOWN])}. Find all "
            "with `python -m tools.records verify` and pack the set again, or go on without them with bad_records=skip"
        )
    elif failures:
        expected = len(failures) * len(source) // len(chosen)
        if expected > config.max_bad_records:
            problems.append(
                f"rec: {len(failures)} of {len(chosen)} images cannot be read, about {expected} of all, and "
                f"max_bad_records = {config.max_bad_records}: pack the set again, or raise it. {failures[0]}"
            )
    if labels_off:
        problems.append(f"rec: {labels_off} of {len(chosen)} labels are not in 0 .. {source.num_classes - 1}")
    if len(blank) > len(chosen) // 2:
        problems.append(f"rec: {len(blank)} of {len(chosen)} images are of one colour, image {blank[0]} for example")
    shown = f" (images {', '.join(map(str, blank[:_SHOWN]))})" if blank else ""
    shape = " x ".join(map(str, source.image_format.shape))
    findings = [
        f"{len(chosen)} images read, {each * 1e3:.1f} ms each, {shape}: {len(failures)} unreadable, {grey} grey, "
        f"{len(blank)} of one colour{shown}"
    ]
    return [*_look_at_index(source), *findings], problems


def describe_classes(source: Source) -> str:
    """How many images the classes have."""
    counts = source.class_counts()
    present = counts[counts > 0]
    if not len(present):
        return "no class has an image"
    empty = f", {len(counts) - len(present)} without any" if len(present) < len(counts) else ""
    return (
        f"{len(source)} images of {len(counts)} classes: {present.min()} to {present.max()} each, median "
        f"{np.median(present):.0f}; {int((counts == 1).sum())} with a single one{empty}"
    )


def look_at_pairs(pair_set: PairSet) -> tuple[str, list[str]]:
    """Decodes some images of a verification set; returns what it is, and problems."""
    failures = []
    chosen = spread(len(pair_set.images), PAIR_IMAGES)
    for index in chosen:
        try:
            pair_set.images[index]
        except (DataError, OSError) as error:
            failures.append(f"image {index}: {error}")
    same = int(pair_set.is_same.sum())
    different = len(pair_set.is_same) - same
    distinct = len(np.unique(pair_set.first_index)) if len(pair_set.first_index) else len(pair_set.images)
    uneven = "" if min(same, different) * 3 >= max(same, different) else " (uneven: accuracy says little, see AUC)"
    finding = (
        f"{pair_set.name}: {same} same and {different} different pairs{uneven}, {distinct} images, {len(chosen)} read"
    )
    if not failures:
        return finding, []
    return finding, [
        f"val_targets: {pair_set.name}: {len(failures)} of {len(chosen)} images cannot be read: "
        f"{'; '.join(failures[:_SHOWN])}"
    ]


def look_for_overlap(source: Source, pair_sets: Iterable[PairSet]) -> list[str]:
    """Whether verification images are training images, pixel for pixel; compares what a few seconds allow.

    Of a large training set that would be a share that says nothing: it is not tried.
    """
    if len(source) > COMPARED_IMAGES:
        return []
    deadline = time.perf_counter() + COMPARED_SECONDS / 2
    verification = {pairs.name: dict(_hashed(pairs.images, range(len(pairs.images)), deadline)) for pairs in pair_sets}
    if not any(verification.values()):
        return []
    training: set[bytes] = set()
    deadline = time.perf_counter() + COMPARED_SECONDS / 2
    for digest, _ in _hashed(_Pixels(source), spread(len(source), len(source)), deadline):
        training.add(digest)
    lines = []
    for name, digests in verification.items():
        shared = sorted(index for digest, index in digests.items() if digest in training)
        told = f"{len(shared)} of {len(digests)} images of {name} are" if shared else f"no image of {name} is"
        where = f" (image {shared[0]} for example)" if shared else ""
        lines.append(f"{told} among {len(training)} of {len(source)} training images, compared by pixels{where}")
    return lines


def try_writing(output: Path) -> tuple[float, list[str]]:
    """Writes, syncs and renames a file in a new folder in the run's folder (or where that will be), and removes both.

    The run's folder itself is not made: of several ranks none would know when to remove it.

    Returns:
        Bytes per second (0 where it failed), and problems.
    """
    existing = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryDirectory(prefix=".check.", dir=existing) as name:
            partial, final = Path(name) / "partial", Path(name) / "whole"
            start = time.perf_counter()
            with partial.open("wb") as stream:
                for _ in range(min(_WRITTEN, shutil.disk_usage(existing).free // 4) >> 20):
                    stream.write(block)
                stream.flush()
                os.fsync(stream.fileno())
                written = stream.tell()
            os.replace(partial, final)
            sync_folder(final.parent)
            return written / (time.perf_counter() - start), []
    except OSError as error:
        return 0.0, [f"output: cannot write in {existing}: {error.strerror}: choose another with output=FOLDER"]


def spread(total: int, wanted: int) -> list[int]:
    """Up to `wanted` different numbers below `total`, drawn from even parts of it; always the first and the last."""
    if total <= wanted:
        return list(range(total))
    edges = np.linspace(0, total, wanted + 1).astype(np.int64)
    drawn = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    drawn[0], drawn[-1] = 0, total - 1
    return [int(number) for number in drawn]


class _Pixels:
    """The images of a source without their labels."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, index: int) -> np.ndarray:
        return self._source.read(index)[0]


def _hashed(images: object, indices: Iterable[int], deadline: float) -> Iterable[tuple[bytes, int]]:
    """Digest and index of what can be read until the deadline."""
    for index in indices:
        if time.perf_counter() > deadline:
            return
        with contextlib.suppress(DataError, OSError):
            yield hashlib.blake2b(images[index].tobytes(), digest_size=16).digest(), index  # type: ignore[index]


def _look_at_index(source: Source) -> list[str]:
    """Whether the record file ends where its index says."""
    reader = getattr(source, "reader", None)
    if reader is None or getattr(reader, "index_path", None) is None or not len(reader.keys):
        return []
    try:
        end = reader.end(int(reader.keys[-1]))
    except DataError:
        return []  # told by whoever reads images
    beyond = reader.path.stat().st_size - end
    if beyond <= 0:
        return [f"the index ends where {reader.path.name} does"]
    return [f"{reader.path.name} has {beyond} bytes beyond the last record of its index: is the index an older one?"]
