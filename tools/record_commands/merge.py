"""`merge`: several record sets as one; whose identities are the same is a stated rule, equal images a choice."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from sources.base import SourceError
from tools.record_commands.in_order import counted
from tools.record_commands.joined import JoinedImages, image_size_of
from tools.record_commands.options import add_command, check_output, open_set, prepare_output, rec_file, release_output
from utils.command_line import Outcome
from utils.files import whole_file
from utils.record_names import identity_names, names_beside
from utils.record_stream import RecordStream, image_labels
from utils.recordio import RecordError, RecordReader

IDENTITIES = "identities.tsv"
_MAX_CLASSES = 1 << 24  # labels are float32 in a record
EXAMPLES = (
    "python -m tools.records merge data/first data/second data/both",
    "python -m tools.records merge data/first data/second data/both --labels names --drop-duplicates",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(commands, "merge", "several record sets -> one", EXAMPLES, run)
    parser.add_argument("sets", type=Path, nargs="+", metavar="set", help="folders with train.rec, or .rec files")
    parser.add_argument("output", type=Path, help="folder for train.rec, train.idx, train.lst, property")
    parser.add_argument(
        "--labels", choices=("offset", "names"), default="offset",
        help="offset: identities of different sets are different people (default). names: identities whose images were "
        "in a folder of the same name, by the .lst of each set, are one",
    )  # fmt: skip
    parser.add_argument(
        "--drop-duplicates", action="store_true",
        help="of images with equal bytes keep the first, in the order of the sets; costs a second reading",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")


def run(options: argparse.Namespace) -> Outcome:
    """Merges."""
    sources = [rec_file(location) for location in options.sets]
    if len({source.resolve() for source in sources}) < len(sources):
        raise SourceError("a set is named twice; its images would be in the new set twice")
    output: Path = options.output
    check_output(output, overwrite=options.overwrite, sources=sources)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_set(source)) for source in sources]
        sizes = [image_size_of(reader, int(reader.image_keys[0])) for reader in readers]
        if len(set(sizes)) > 1:
            told = ", ".join(
                f"{height}x{width} in {path}" for (height, width), path in zip(sizes, sources, strict=True)
            )
            raise SourceError(f"images of different sizes: {told}; pack the sets again with --size first")
        labels = [image_labels(reader) for reader in readers]
        names = [_names(reader, own, options.labels == "names") for reader, own in zip(readers, labels, strict=True)]
        new_of = _new_labels(names, join=options.labels == "names")
        sets = np.repeat(np.arange(len(readers), dtype=np.int32), [len(own) for own in labels])
        keys = np.concatenate([reader.image_keys for reader in readers])
        old = np.concatenate(labels)
        new = np.concatenate([table[own] for table, own in zip(new_of, labels, strict=True)])
        kept, dropped, conflicts = np.ones(len(keys), dtype=bool), 0, 0
        if options.drop_duplicates:
            kept, conflicts = first_of_equals(readers, new)
            dropped = int((~kept).sum())
        present = np.unique(new[kept])
        if len(present) > _MAX_CLASSES:
            raise SourceError(f"{len(present)} identities; a record set holds {_MAX_CLASSES}, labels being float32")
        lock = prepare_output(output, overwrite=options.overwrite, sources=sources)
        try:
            joined = JoinedImages(readers, sets[kept], keys[kept], old[kept], np.searchsorted(present, new[kept]))
            joined.write(output, len(present), sizes[0], "merge")
            _write_identities(output, options.sets, names, new_of, present)
        finally:
            release_output(output, lock)
    shared = sum(len(np.unique(own)) for own in labels) - len(np.unique(new))
    facts = {
        "rec": output / "train.rec", "sets": len(readers), "images": int(kept.sum()), "identities": len(present),
        "identities_joined": shared, "duplicates_dropped": dropped, "duplicates_of_other_identities": conflicts,
        "identities_file": output / IDENTITIES, "images_without_a_name": joined.num_unnamed,
    }  # fmt: skip
    words = [f"{facts['rec']}: {facts['images']} images of {len(present)} identities from {len(readers)} sets"]
    if options.labels == "names":
        words.append(f"{shared} identities were joined with one of an earlier set by name")
    if options.drop_duplicates:
        words.append(f"{dropped} images equal to an earlier one were left out")
    if conflicts:
        words.append(f"note: {conflicts} of them had another identity there: one of the two labels is wrong")
    words.append(f"{output / IDENTITIES}: new label, set, old label, name")
    note = joined.unnamed_note("FOLDER/LABEL/KEY", "the set of that folder")
    return Outcome("\n".join(words) + note, facts)


def _names(reader: RecordReader, labels: np.ndarray, needed: bool) -> list[str | None]:
    """Names by label; None where nothing names an identity.

    Raises:
        SourceError: names are needed, and the set does not tell them.
    """
    names = names_beside(reader.path)
    reason = f"there is no {reader.path.with_suffix('.lst').name} beside {reader.path}"
    if names is not None:
        with names:
            try:
                return identity_names(names, reader.image_keys, labels, reader.num_classes)
            except RecordError as error:
                reason = str(error)
    if needed:
        raise SourceError(f"--labels names: {reason}; without names use --labels offset")
    return [None] * reader.num_classes


def _new_labels(names: Sequence[Sequence[str | None]], *, join: bool) -> list[np.ndarray]:
    """For each set the new label of each old one, int64 (classes of the set,)."""
    tables, next_label = [], 0
    known: dict[str, int] = {}
    for own in names:
        table = np.empty(len(own), dtype=np.int64)
        for label, name in enumerate(own):
            if join and name is not None and name in known:
                table[label] = known[name]
                continue
            table[label] = next_label
            if name is not None:
                known[name] = next_label
            next_label += 1
        tables.append(table)
    return tables


def first_of_equals(readers: Sequence[RecordReader], new: np.ndarray) -> tuple[np.ndarray, int]:
    """Which images have no equal before them, bool (N,), and how many of the others are of another identity than it.

    Equal are images with the same bytes, by 128 bits of BLAKE2; 16 bytes of memory an image.
    """
    digests = np.empty((len(new), 2), dtype=np.uint64)
    row = 0
    for reader in readers:
        with RecordStream(reader) as stream:
            samples = stream.samples(reader.image_keys)
            for _, _, payload in counted(samples, len(reader.image_keys), "compare"):
                digests[row] = np.frombuffer(hashlib.blake2b(payload, digest_size=16).digest(), np.uint64)
                row += 1
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equals stay in order
    ordered = digests[order]
    is_equal = np.zeros(len(new), dtype=bool)
    is_equal[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    first = order[np.maximum.accumulate(np.where(is_equal, 0, np.arange(len(new))))]
    kept = np.ones(len(new), dtype=bool)
    kept[order[is_equal]] = False
    return kept, int((new[order[is_equal]] != new[first[is_equal]]).sum())


def _write_identities(
    output: Path, sets: Sequence[Path], names: Sequence[Sequence[str | None]], new_of: Sequence[np.ndarray],
    present: np.ndarray,
) -> None:  # fmt: skip
    places = {label: place for place, label in enumerate(present.tolist())}
    lines = []
    for location, own, table in zip(sets, names, new_of, strict=True):
        for old, (name, new) in enumerate(zip(own, table.tolist(), strict=True)):
            if new in places:
                where = re.sub(r"[\t\n\r]", "_", str(location))
                lines.append((places[new], f"{places[new]}\t{where}\t{old}\t{name or ''}\n"))
    lines.sort(key=lambda line: line[0])
    with whole_file(output / IDENTITIES) as stream:
        stream.write("".join(text for _, text in lines).encode("utf-8", "surrogateescape"))
