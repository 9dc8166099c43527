"""`shuffle`: the same set with its records in a random order in the file, for readers that go through it in order."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tools.record_commands.options import (
    add_command,
    add_output,
    memory,
    open_set,
    prepare_output,
    rec_file,
    release_output,
    seed,
)
from utils.command_line import Outcome
from utils.files import sync_folder, whole_file
from utils.record_index import write_index
from utils.record_names import names_beside
from utils.record_set import remove_descriptions, write_property
from utils.record_shuffle import RecordPlan, random_places, write_shuffled
from utils.record_stream import image_labels, record_ends
from utils.record_writer import partial_path
from utils.recordio import RecordError, RecordReader

EXAMPLES = (
    "python -m tools.records shuffle data/mine data/mine_shuffled",
    "python -m tools.records shuffle data/mine data/mine_dali --layout plain --seed 1",
    "python -m tools.records shuffle data/mine data/mine_shuffled --memory 4G",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(commands, "shuffle", "a set with its records in a random order in the file", EXAMPLES, run)
    parser.add_argument("set", type=Path, help="folder with train.rec, or a .rec file")
    add_output(parser)
    parser.add_argument(
        "--layout", choices=("keep", "plain"), default="keep",
        help="keep: every record keeps its key, so set header and identity records stay true (default). plain: images "
        "only, numbered in the new order, each with its one label: what DALI and MXNet's ImageRecordIter go through",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0, help="the same seed gives the same file (default 0)")
    parser.add_argument(
        "--memory", type=memory, default=512 << 20, metavar="BYTES",
        help="for records, like 512M (default) or 4G; a set that fits into it takes one pass, another one two",
    )  # fmt: skip


def run(options: argparse.Namespace) -> Outcome:
    """Shuffles a set."""
    source = rec_file(options.set)
    output: Path = options.output
    lock = prepare_output(output, overwrite=options.overwrite, sources=[source])
    try:
        with open_set(source) as reader:
            begin = time.monotonic()
            written = shuffle_set(reader, output, seed=options.seed, layout=options.layout, memory=options.memory)
    finally:
        release_output(output, lock)
    seconds = time.monotonic() - begin
    rec, passes = output / "train.rec", 1 if written <= options.memory else 2
    images, speed = len(reader.image_keys), written / max(seconds, 1e-9)
    words = (
        f"{rec}: {images} images, layout {options.layout}, {written:,} bytes in {seconds:.1f} s "
        f"({speed / 1e6:,.0f} MB/s of the set, {passes} pass{'es' if passes > 1 else ''})"
    )
    facts = {
        "rec": rec, "images": images, "layout": options.layout, "seed": options.seed, "bytes": written,
        "seconds": seconds, "bytes_per_second": speed, "passes": passes,
    }  # fmt: skip
    return Outcome(words, facts)


def shuffle_set(reader: RecordReader, output: Path, *, seed: int, layout: str, memory: int) -> int:
    """Writes the set into `output` with its image records in a random order; returns the bytes of the new .rec.

    Layout "keep": keys, labels and payloads stay as they are; the .idx tells where each key is now. The set header is
    still the first record and the identity records still the last ones, and what they say of keys is still true.
    Layout "plain": the images alone, with keys 0, 1, ... in the new order and the first label as their only one.
    Ids in the headers become the keys in both, so that a lost .idx can be rebuilt from the file.

    Raises:
        RecordError: damage, or bytes that belong to no record or to two.
    """
    rec, plain = output / "train.rec", layout == "plain"
    plan, new_keys = _plan(reader, seed, plain)
    partial = partial_path(rec)
    passes = 1 if int(plan.sizes[plan.places >= 0].sum()) <= memory else 2
    try:
        with partial.open("w+b") as stream:
            total = int(plan.sizes.sum()) * passes
            with tqdm(total=total, unit="B", unit_scale=True, desc="shuffle", disable=None) as bar:
                offsets, written = write_shuffled(plan, stream.fileno(), memory, bar.update)
            os.fsync(stream.fileno())
        order = np.argsort(new_keys, kind="stable")
        new_index, new_names = partial_path(output / "train.idx"), partial_path(output / "train.lst")
        new_names.unlink(missing_ok=True)
        with whole_file(new_index) as stream:
            write_index(stream, new_keys[order], offsets[order])
        _write_names(reader, new_names, plan, plain)
        remove_descriptions(output)  # never an old one beside the new records
        (output / "train.idx").unlink(missing_ok=True)
        # the records last: without their property file a plain set would be one of fewer classes
        if reader.image_size is not None:
            write_property(output, reader.num_classes, reader.image_size)
        if new_names.is_file():
            os.replace(new_names, output / "train.lst")
        if not rec.exists():  # else the old records would have a new index for a moment
            os.replace(new_index, output / "train.idx")
        os.replace(partial, rec)
        if new_index.is_file():
            os.replace(new_index, output / "train.idx")
        sync_folder(output)
    finally:
        for name in ("train.rec", "train.idx", "train.lst"):
            partial_path(output / name).unlink(missing_ok=True)
    return written


def _plan(reader: RecordReader, seed: int, plain: bool) -> tuple[RecordPlan, np.ndarray]:
    """What goes where, and the key of the record in each place."""
    ends = record_ends(reader)
    order = np.argsort(reader.offsets(reader.keys), kind="stable")
    keys, offsets = reader.keys[order], reader.offsets(reader.keys[order])
    twice = np.flatnonzero(np.diff(offsets) == 0)
    if offsets[0] != 0 or len(twice):
        key = int(keys[twice[0] if len(twice) else 0])
        reason = "the index has two keys for one record" if len(twice) else "bytes before it belong to no record"
        raise RecordError(reader.path, key, reader.offset(key), f"{reason}; `verify` tells what is wrong with the set")
    is_image = np.isin(keys, reader.image_keys)
    images = int(is_image.sum())
    places = np.full(len(keys), -1, dtype=np.int64)
    places[is_image] = random_places(images, seed)
    others = np.flatnonzero(~is_image)
    if not plain:  # the set header in front, then the images, then the identity records by key
        others = others[np.argsort(keys[others])]
        front = len(others) > 0
        places[is_image] += int(front)
        places[others] = np.arange(len(others)) + images
        if front:
            places[others[0]] = 0
    new_keys = np.empty(int((places >= 0).sum()), dtype=np.int64)
    kept = places >= 0
    new_keys[places[kept]] = places[kept] if plain else keys[kept]
    own = places if plain else keys
    return RecordPlan(reader.path, offsets, ends[order] - offsets, places, own, plain), new_keys


def _write_names(reader: RecordReader, path: Path, plan: RecordPlan, plain: bool) -> None:
    """The .lst of the new set, where the old one has one."""
    old = reader.path.with_suffix(".lst")
    if not plain:
        if old.is_file():
            with old.open("rb") as source, whole_file(path) as stream:
                shutil.copyfileobj(source, stream)
        return
    names = names_beside(reader.path)
    if names is None:
        return
    kept = np.flatnonzero(plan.places >= 0)
    rows = kept[np.argsort(plan.places[kept])]
    by_offset = reader.keys[np.argsort(reader.offsets(reader.keys), kind="stable")]
    keys = by_offset[rows]
    labels = image_labels(reader)[np.searchsorted(reader.image_keys, keys)]
    with names, whole_file(path) as stream:
        for place, (key, label) in enumerate(zip(keys.tolist(), labels.tolist(), strict=True)):
            name = names.name(key) or f"record {key}"
            stream.write(f"{place}\t{label}\t{name}\n".encode("utf-8", "surrogateescape"))
