"""Command line: a folder of people -> a list of pairs to verify on, in folds that share nobody. Reads no pixels."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.image_set import ImageSet, open_image_set
from utils.command_line import Outcome, command_parser, run_command
from utils.errors import DataError
from utils.files import write_text_whole

COLUMNS = ("first", "second", "is_same", "fold")


class DrawError(DataError):
    """More pairs than a folder can give; the text says how many it can."""


@dataclass(frozen=True)
class DrawnPair:
    """Two images of a set by their positions, in one fold."""

    first: int
    second: int
    is_same: bool
    fold: int


def draw_pairs(labels: np.ndarray, *, num_pairs: int, num_folds: int, seed: int = 0) -> list[DrawnPair]:
    """Draws as many pairs of one person as of two, none twice.

    Each person is in one fold only, as in LFW's View 2, so that a threshold chosen on the other folds has met nobody
    of this one. Pairs of one person go round the people, so that nobody with many images makes up the set; the two of
    a different pair are drawn uniformly among the fold's people, then among their images.

    Args:
        labels: (N,) identity of each image; negative ones are left out.
        num_pairs: in all; a multiple of 2 * num_folds.
        num_folds: at least 1; each needs two people, and one with two images.
        seed: of the draw.

    Returns:
        The pairs, fold after fold, in each the same ones first.

    Raises:
        DrawError: numbers that do not divide, or people with too few images for them.
    """
    if num_folds < 1 or num_pairs < 2 * num_folds or num_pairs % (2 * num_folds):
        raise DrawError(
            f"{num_pairs} pairs in {num_folds} folds: each fold needs as many of one person as of two: a multiple of "
            f"{2 * max(num_folds, 1)}"
        )
    random = np.random.default_rng(seed)
    people = random.permutation(np.unique(labels[labels >= 0]))
    images = {int(person): np.flatnonzero(labels == person) for person in people}
    # dealt out from those with most images down, so that no fold is left with people of one image
    dealt = sorted((int(person) for person in people), key=lambda person: -len(images[person]))
    drawn: list[DrawnPair] = []
    for fold in range(num_folds):
        inside = [images[person] for person in dealt[fold::num_folds]]
        drawn += _same(inside, num_pairs // (2 * num_folds), fold, num_folds, random)
        drawn += _different(inside, num_pairs // (2 * num_folds), fold, num_folds, random)
    return drawn


def _same(
    people: list[np.ndarray], count: int, fold: int, num_folds: int, random: np.random.Generator
) -> list[DrawnPair]:
    possible = sum(len(own) * (len(own) - 1) // 2 for own in people)
    if possible < count:
        raise DrawError(
            f"fold {fold + 1} of {num_folds} has {len(people)} people, whose images make {possible} pairs of one "
            f"person; {count} are wanted: fewer --pairs, fewer --folds, or more images"
        )
    waiting = []
    for own in people:
        first, second = np.triu_indices(len(own), 1)
        order = random.permutation(len(first))
        waiting.append([(int(own[first[place]]), int(own[second[place]])) for place in order[:count]])
    drawn: list[DrawnPair] = []
    while len(drawn) < count:
        for pairs in waiting:
            if pairs and len(drawn) < count:
                drawn.append(DrawnPair(*pairs.pop(), True, fold))
    return drawn


def _different(
    people: list[np.ndarray], count: int, fold: int, num_folds: int, random: np.random.Generator
) -> list[DrawnPair]:
    sizes = [len(own) for own in people]
    possible = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    if possible < count:
        raise DrawError(
            f"fold {fold + 1} of {num_folds} has {len(people)} people, whose images make {possible} pairs of two; "
            f"{count} are wanted: fewer --pairs, fewer --folds, or more people"
        )
    seen: dict[tuple[int, int], None] = {}
    while len(seen) < count:
        if 2 * count > possible:  # drawing again and again would meet the same ones: list all
            everything = [
                (int(a), int(b))
                for i, own in enumerate(people)
                for other in people[i + 1 :]
                for a in own
                for b in other
            ]
            seen = dict.fromkeys(everything[place] for place in random.permutation(len(everything))[:count])
            break
        left, right = random.choice(len(people), 2, replace=False)
        first, second = int(random.choice(people[left])), int(random.choice(people[right]))
        if (second, first) not in seen:
            seen[first, second] = None
    return [DrawnPair(first, second, False, fold) for first, second in seen]


def pairs_text(image_set: ImageSet, pairs: Sequence[DrawnPair]) -> str:
    """The list as CSV: first, second, is_same (1 or 0), fold (from 1)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for pair in pairs:
        names = (image_set.names[pair.first], image_set.names[pair.second])
        writer.writerow([*names, int(pair.is_same), pair.fold + 1])
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where no such list can be drawn."""
    parser = command_parser(
        "python -m tools.draw_pairs",
        "Draw pairs from a folder with one sub-folder of images per person: as many of one person as of two, in folds "
        "that share nobody.",
        [
            "python -m tools.draw_pairs faces/test --pairs 600",
            "python -m tools.draw_pairs faces/test --folds 5 -o p.csv",
        ],
    )
    parser.add_argument("images", type=Path, help="folder with one sub-folder of images per person")
    parser.add_argument("-o", "--out", type=Path, help="the list (default: pairs.csv in the folder)")
    parser.add_argument("--pairs", type=int, default=600, help="in all (default 600)")
    parser.add_argument("--folds", type=int, default=10, help="default 10")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a list that is already there")
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _draw(options), (DataError, OSError))


def _draw(options: argparse.Namespace) -> Outcome:
    image_set = open_image_set(options.images, image_format=None)
    out: Path = options.out or options.images / "pairs.csv"
    if out.exists() and not options.overwrite:
        raise DrawError(f"{out} is already there: choose another name with -o, or add --overwrite")
    if out.suffix != ".csv":
        raise DrawError(f"{out}: the list is CSV; name it so, like pairs.csv")
    pairs = draw_pairs(image_set.labels, num_pairs=options.pairs, num_folds=options.folds, seed=options.seed)
    write_text_whole(pairs_text(image_set, pairs), out)
    people = len(np.unique(image_set.labels[image_set.labels >= 0]))
    facts = {"list": out, "pairs": len(pairs), "folds": options.folds, "people": people, "seed": options.seed}
    words = f"{out}: {len(pairs)} pairs in {options.folds} folds, from {people} people"
    return Outcome(words, facts)


if __name__ == "__main__":
    sys.exit(main())
