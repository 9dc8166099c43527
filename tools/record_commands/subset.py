"""`subset`: a set of some images of another, chosen by identity, number, key or chance."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from sources.base import SourceError
from tools.record_commands.joined import JoinedImages, image_size_of
from tools.record_commands.options import (
    add_command,
    add_output,
    check_output,
    count,
    open_set,
    prepare_output,
    rec_file,
    release_output,
    seed,
    share,
)
from tools.record_commands.selection import Selection, select
from utils.command_line import Outcome
from utils.files import write_text_whole
from utils.record_names import identity_names, names_beside
from utils.record_stream import image_labels
from utils.recordio import RecordError, RecordReader

CLASS_MAP = "class_map.txt"
EXAMPLES = (
    "python -m tools.records subset data/mine data/small --share 0.1 --seed 1",
    "python -m tools.records subset data/mine data/dense --min-images 10 --max-images 50",
    "python -m tools.records subset data/mine data/some --identities 0-99,205",
    "python -m tools.records subset data/mine data/sound --without damaged.txt",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(commands, "subset", "a set of some images of another", EXAMPLES, run)
    parser.add_argument("set", type=Path, help="folder with train.rec, or a .rec file")
    add_output(parser)
    parser.add_argument("--keys", type=Path, help="keep the records in this file only, one key a line")
    parser.add_argument("--without", type=Path, help="leave out the records in this file, one key a line")
    parser.add_argument(
        "--identities", help="keep these: labels like 0-99,205, or a file with a label or an identity's name a line"
    )
    parser.add_argument("--min-images", type=count, default=1, help="leave out identities that have fewer")
    parser.add_argument("--max-images", type=count, help="draw so many of an identity that has more")
    parser.add_argument("--num-identities", type=count, help="draw so many identities")
    parser.add_argument("--num-images", type=count, help="draw so many images")
    parser.add_argument("--share", type=share, help="draw this part, like 0.1")
    parser.add_argument("--by", choices=("identity", "image"), default="identity", help="what --share is a part of")
    parser.add_argument("--seed", type=seed, default=0, help="of the draws (default 0)")
    parser.add_argument("--keep-labels", action="store_true", help="keep the labels; those left out have no image then")


def run(options: argparse.Namespace) -> Outcome:
    """Writes the subset."""
    source, output = rec_file(options.set), options.output
    check_output(output, overwrite=options.overwrite, sources=[source])
    with open_set(source) as reader:
        keys, labels = reader.image_keys, image_labels(reader)
        by_identity = options.by == "identity"
        selection = Selection(
            keys=_read_keys(options.keys), without=_read_keys(options.without),
            identities=_identities(options.identities, reader, labels), min_images=options.min_images,
            num_identities=options.num_identities, identity_share=options.share if by_identity else None,
            max_images=options.max_images, num_images=options.num_images,
            image_share=None if by_identity else options.share, seed=options.seed,
        )  # fmt: skip
        kept = select(keys, labels, selection)
        if not kept.any():
            raise SourceError(f"{source}: nothing is left of its {len(keys)} images; choose less strictly")
        present = np.unique(labels[kept])
        num_classes = reader.num_classes if options.keep_labels else len(present)
        new = labels[kept] if options.keep_labels else np.searchsorted(present, labels[kept])
        image_size = image_size_of(reader, int(keys[kept][0]))
        sets = np.zeros(len(new), dtype=np.int8)
        lock = prepare_output(output, overwrite=options.overwrite, sources=[source])
        try:
            images = JoinedImages([reader], sets, keys[kept], labels[kept], new)
            images.write(output, num_classes, image_size, "subset")
            if not options.keep_labels:
                write_text_whole("".join(f"{label}\n" for label in present.tolist()), output / CLASS_MAP)
        finally:
            release_output(output, lock)
        facts = {
            "rec": output / "train.rec", "images": int(kept.sum()), "identities": len(present),
            "images_before": len(keys), "identities_before": reader.num_classes,
            "class_map": None if options.keep_labels else output / CLASS_MAP, "seed": options.seed,
        }  # fmt: skip
    words = (
        f"{facts['rec']}: {facts['images']} of {len(keys)} images, {len(present)} of {reader.num_classes} identities"
    )
    if not options.keep_labels:
        words += f"\n{output / CLASS_MAP}: line i + 1 is the old label of the new label i"
    return Outcome(words, facts)


def _read_keys(path: Path | None) -> np.ndarray | None:
    """Keys of a file, one a line."""
    if path is None:
        return None
    words = _lines(path)
    wrong = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) <= 18)), None)
    if wrong is not None:
        raise SourceError(f"{path}: {wrong[:80]!r} is no key; one whole number a line is expected")
    return np.array([int(word) for word in words], dtype=np.int64)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None


def _identities(text: str | None, reader: RecordReader, labels: np.ndarray) -> np.ndarray | None:
    """Labels from `0-99,205`, or from a file of labels or names."""
    if text is None:
        return None
    parts = _lines(Path(text)) if os.path.isfile(text) else text.split(",")  # Path's would fail on a long list
    spans = [part.split("-") if set(part) <= set("0123456789-") else [part] for part in parts]
    if all(len(span) <= 2 and all(word.isdigit() and len(word) <= 9 for word in span) for span in spans):
        found = [np.arange(int(span[0]), min(int(span[-1]), reader.num_classes - 1) + 1) for span in spans]
        beyond = [span[-1] for span in spans if int(span[-1]) >= reader.num_classes or int(span[0]) > int(span[-1])]
        if beyond:
            raise SourceError(f"--identities: {beyond[0]} is no label; the set has 0 .. {reader.num_classes - 1}")
        return np.concatenate(found)
    names = names_beside(reader.path)
    if names is None:
        raise SourceError(
            f"--identities {text}: there is no .lst beside {reader.path} that names identities: give labels"
        )
    with names:
        try:
            known = identity_names(names, reader.image_keys, labels, reader.num_classes)
        except RecordError as error:
            raise SourceError(f"--identities {text}: names of identities are not known: {error}") from None
    places = {name: label for label, name in enumerate(known) if name is not None}
    strangers = [part for part in parts if part not in places]
    if strangers:
        raise SourceError(f"--identities {text}: no identity is named {strangers[0]!r} ({len(strangers)} such names)")
    return np.array([places[part] for part in parts], dtype=np.int64)
