"""`bin`: images and a pair list -> insightface's `.bin`, and back. The formats are eval's."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from eval.bin_files import read_bin, write_bin
from eval.pair_formats.pair_list import blocks, folds_of_one_kind, order_for_blocks
from eval.pair_formats.reading import read_pair_list
from sources.base import SourceError
from tools.record_commands.image_kinds import suffix_of
from tools.record_commands.in_order import counted
from tools.record_commands.options import add_command, quality, size
from tools.record_commands.pack import Treatment
from utils.command_line import Outcome
from utils.files import sha256_of, sync_folder, write_text_whole
from utils.images import FACE

EXAMPLES = (
    "python -m tools.records bin lfw/images lfw.bin --pairs lfw/pairs.txt",
    "python -m tools.records bin lfw.bin lfw",
    "python -m tools.records bin photos mine.bin --pairs pairs.txt --size 112",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(commands, "bin", "images and a pair list -> insightface's .bin, and back", EXAMPLES, run)
    parser.add_argument("source", type=Path, help="folder of images (with --pairs), or a .bin file")
    parser.add_argument("output", type=Path, help="the .bin file to write, or the folder for images and pairs.txt")
    parser.add_argument("--pairs", type=Path, help="list of pairs, in any format that eval.verification reads")
    parser.add_argument("--size", type=size, help="resize images to SIZE or HEIGHTxWIDTH; readers of .bin want 112x112")
    parser.add_argument("--quality", type=quality, default=95, help="JPEG quality of resized images (default 95)")
    parser.add_argument("--overwrite", action="store_true", help="replace a .bin file that is already there")


def run(options: argparse.Namespace) -> Outcome:
    """Makes a .bin file, or takes one apart."""
    source, output = options.source, options.output
    if output.exists() and not (options.overwrite and source.is_dir() and output.is_file()):
        more = ", or add --overwrite" if source.is_dir() and output.is_file() else ""
        raise SourceError(f"{output} is already there: choose another name{more}")
    if source.is_dir():
        if options.pairs is None:
            raise SourceError(f"{source} is a folder: name the list of pairs with --pairs")
        return make_bin(source, options.pairs, output, options.size, options.quality)
    if not source.is_file():
        raise SourceError(f"{source}: no such file or folder; give a folder of images with --pairs, or a .bin file")
    if options.pairs is not None or options.size is not None:
        raise SourceError(f"{source} is a file: --pairs and --size belong to a folder of images")
    return take_apart(source, output)


def make_bin(images: Path, pairs: Path, output: Path, size: tuple[int, int] | None, quality: int) -> Outcome:
    """Writes the pairs of a list as a `.bin`; images that have the right size keep their bytes.

    An image in several pairs is in the file once, and memory holds each image once. A `.bin` has no folds, readers make
    ten blocks of it: pairs are written fold after fold, so that folds of equal size stay what they are. Where the folds
    are lost, both kinds of pairs are dealt over the blocks: a block of one kind has an accuracy that says nothing.

    Raises:
        PairError: the list does not parse.
        SourceError: an image is missing or of another size than 112x112, without `size`.
        ImageError: an image does not decode; names the file.
    """
    if not output.parent.is_dir():
        raise SourceError(f"{output.parent}: no such folder; make it first")
    listed_pairs = read_pair_list(pairs)
    order = order_for_blocks(listed_pairs.is_same, listed_pairs.folds)
    is_same, folds = listed_pairs.is_same[order], listed_pairs.folds[order]
    listed = [listed_pairs.images[2 * pair + side] for pair in order.tolist() for side in (0, 1)]
    treatment = Treatment(size or (FACE.height, FACE.width), size is not None, quality=quality)
    loaded: dict[str, bytes] = {}
    for image in counted(listed, len(listed), "bin"):
        if image.file not in loaded:
            path = images / image.file
            try:
                if path.exists() and not path.is_file():  # a pipe would never end
                    raise SourceError(f"{image.where}: {path} is no file")
                data = path.read_bytes()
            except OSError as error:
                raise SourceError(f"{image.where}: {path} cannot be read: {error.strerror or error}") from None
            loaded[image.file] = treatment(data, path)
    write_bin(output, [loaded[image.file] for image in listed], is_same)
    num_same = int(is_same.sum())
    words = [f"{output}: {len(is_same)} pairs ({num_same} same) of {len(loaded)} images"]
    read_as = blocks(len(folds))
    num_read, keeps_folds = int(read_as.max()) + 1, bool((folds == read_as).all())
    in_order = bool((np.diff(folds) >= 0).all())
    if not keeps_folds:
        dealt = "" if in_order else ", over which pairs of both kinds are dealt"
        words.append(
            f"note: the list's folds are lost; a .bin has none, readers make {num_read} equal ones of it{dealt}"
        )
    one_kind = folds_of_one_kind(is_same, read_as)
    if one_kind:
        words.append(
            f"warning: {one_kind} of the {num_read} folds that readers make hold pairs of one kind only; an accuracy "
            "over such folds says little. Mix same and different pairs in the list, or give it a column of folds"
        )
    digest = sha256_of(output)
    facts = {
        "bin": output, "pairs": len(is_same), "same": num_same, "images": len(loaded), "keeps_folds": keeps_folds,
        "folds_of_one_kind": one_kind, "sha256": digest,
    }  # fmt: skip
    return Outcome("\n".join([*words, f"SHA-256 {digest}"]), facts)


def take_apart(source: Path, output: Path) -> Outcome:
    """Writes `images/` and `pairs.txt` (two lines a pair) into a folder; the bytes of the images stay as they are.

    A `.bin` has no names. Equal images become one file, and whoever is joined by "same" pairs becomes one identity,
    a folder. Where a "different" pair then lies in one identity the set contradicts itself; the pair gets copies of
    its images in folders of their own, so that the list says what the set says.

    Raises:
        PairError: the file is damaged or no verification set.
    """
    images, is_same = read_bin(source, source.read_bytes())
    unique: dict[bytes, int] = {}
    numbers = np.array([unique.setdefault(hashlib.sha256(image).digest(), len(unique)) for image in images])
    identity = _components(numbers, is_same)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    written: dict[tuple[int, int], str] = {}
    members: dict[int, int] = {}
    lines, contradictions, next_identity = [], 0, int(identity.max()) + 1

    def place(index: int, owner: int) -> str:
        """Where image `index` lies as one of identity `owner`; written at the first time it is asked for."""
        found = written.get((int(numbers[index]), owner))
        if found is None:
            members[owner] = members.get(owner, 0) + 1
            name = f"identity_{owner:06d}"
            found = f"{name}/{name}_{members[owner]:04d}{suffix_of(images[index])}"
            path = partial / "images" / found
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[index])
            written[int(numbers[index]), owner] = found
        return found

    try:
        for pair in counted(range(len(is_same)), len(is_same), "bin"):
            first, second = 2 * pair, 2 * pair + 1
            owners = [int(identity[numbers[first]]), int(identity[numbers[second]])]
            if not is_same[pair] and owners[0] == owners[1]:
                owners, next_identity = [next_identity, next_identity + 1], next_identity + 2
                contradictions += 1
            lines += [place(first, owners[0]), place(second, owners[1])]
        write_text_whole("".join(f"{line}\n" for line in lines), partial / "pairs.txt")
        os.sync()
        os.replace(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(output.parent)
    words = [
        f"{output}: {len(is_same)} pairs ({int(is_same.sum())} same), {len(written)} images in {len(members)} folders"
    ]
    if contradictions:
        words.append(f"note: {contradictions} pairs are called different though other pairs join their images")
    facts = {
        "folder": output, "pairs": len(is_same), "same": int(is_same.sum()), "images": len(written),
        "identities": len(members), "contradictions": contradictions,
    }  # fmt: skip
    return Outcome("\n".join(words), facts)


def _components(numbers: np.ndarray, is_same: np.ndarray) -> np.ndarray:
    """For each different image the identity that "same" pairs make it a member of, numbered as they come."""
    parent = list(range(int(numbers.max()) + 1))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for pair in np.flatnonzero(is_same).tolist():
        first, second = sorted((root(int(numbers[2 * pair])), root(int(numbers[2 * pair + 1]))))
        parent[second] = first
    roots = [root(item) for item in range(len(parent))]
    order: dict[int, int] = {}
    return np.array([order.setdefault(item, len(order)) for item in roots])
