"""`subset`: a set of some images of another, chosen by identity, number, key or chance."""

from __future__ import annotations

import argparse
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
from tools.record_commands.wanted import KINDS, read_keys, unknown_keys, wanted_identities, wanted_keys
from utils.command_line import Outcome
from utils.files import write_text_whole
from utils.record_stream import image_labels

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
    parser.add_argument(
        "--identities-are", choices=KINDS, default="auto",
        help="what numbers in --identities mean; auto: labels, and a file whose numbers are names as well is refused",
    )  # fmt: skip
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
        without = read_keys(options.without)
        strangers = unknown_keys(without, reader)
        selection = Selection(
            keys=wanted_keys(options.keys, reader), without=without,
            identities=wanted_identities(options.identities, reader, labels, options.identities_are),
            min_images=options.min_images,
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
            "unknown_keys_left_out": len(strangers), "images_without_a_name": images.num_unnamed,
        }  # fmt: skip
    words = (
        f"{facts['rec']}: {facts['images']} of {len(keys)} images, {len(present)} of {reader.num_classes} identities"
    )
    if not options.keep_labels:
        words += f"\n{output / CLASS_MAP}: line i + 1 is the old label of the new label i"
    if len(strangers):
        words += (
            f"\nnote: {len(strangers)} keys of {options.without} are of no image of the set, such as {strangers[0]}: "
            "nothing was left out for them"
        )
    return Outcome(words + images.unnamed_note("LABEL/KEY", "the old set"), facts)
