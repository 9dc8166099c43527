"""A small data set of drawn faces, made on the spot: training records and a verification set of other people.

The command line and the order of work; how a face looks is face_rendering's business, file formats are others'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.pairs import write_bin
from tools import face_rendering
from tools.face_rendering import SIZE, render_face
from tools.face_rendering.population import FIRST_EVAL_IDENTITY, Population, SyntheticError, choose_pairs
from tools.face_rendering.studio import draw_people
from utils.command_line import Outcome, command_parser, run_command
from utils.errors import DataError
from utils.record_set import write_record_set

MANIFEST = "synthetic.json"
PAIRS_FILE = "synthetic.bin"


def render_dataset(out: Path, population: Population, *, workers: int = 1) -> bool:
    """Writes `train.rec`, `.idx`, `.lst`, `property` and `synthetic.bin` into a folder, unless they are there already.

    Args:
        out: the folder; made where it is missing.
        population: what to render.
        workers: processes that draw; 1 draws in this one. The bytes written do not depend on it.

    Returns:
        Whether anything was written: False where the folder already holds exactly this data set.

    Raises:
        SyntheticError: the folder holds a data set that this tool has not written.
    """
    wanted: dict[str, object] = {"arguments": asdict(population), "renderer": _renderer_version()}
    found = _read_manifest(out)
    if found is None and (out / "train.rec").exists():
        raise SyntheticError(
            f"{out}: it holds a train.rec that is not this tool's ({MANIFEST} is missing); name another folder"
        )
    if found is not None and _is_whole(out, found, wanted):
        return False
    out.mkdir(parents=True, exist_ok=True)
    # from here on the folder is ours but unfinished: an interrupted run is told apart from somebody else's data
    _write_manifest(out, wanted)
    seed = population.seed
    people = [(seed, i, population.images_per_identity) for i in range(population.identities)]
    others = [(seed, FIRST_EVAL_IDENTITY + i, population.eval_images) for i in range(population.eval_identities)]
    total = sum(count for _, _, count in people + others)
    with tqdm(total=total, desc="drawing faces", unit=" images", mininterval=0.5) as progress:
        drawn = draw_people(people + others, workers, progress.update)
        # people first: the record writer stops after the last of them, and what is left are the others
        records = (
            (jpeg, f"person_{person:05d}/{image:04d}.jpg")
            for person, jpegs in zip(range(len(people)), drawn, strict=False)
            for image, jpeg in enumerate(jpegs)
        )
        write_record_set(out, [count for _, _, count in people], records, (SIZE, SIZE))
        album = list(drawn)
    first, second, is_same = choose_pairs(population)
    images = [album[person][image] for pair in zip(first, second, strict=True) for person, image in pair]
    write_bin(out / PAIRS_FILE, images, is_same)
    files = {
        name: (out / name).stat().st_size for name in ("train.rec", "train.idx", "train.lst", "property", PAIRS_FILE)
    }
    _write_manifest(out, {**wanted, "files": files, "images": total})
    return True


def contact_sheet(seed: int, *, identities: int = 8, images: int = 10) -> NDArray[np.uint8]:
    """Returns one image, uint8 RGB, of `identities` rows of the same person and `images` columns."""
    rows = [np.hstack([render_face(seed, row, column)[0] for column in range(images)]) for row in range(identities)]
    return np.vstack(rows)


def _renderer_version() -> str:
    """A digest of the renderer's own source: a change in how faces are drawn makes an older data set stale."""
    digest = hashlib.sha256()
    for path in sorted(Path(face_rendering.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read_manifest(out: Path) -> dict[str, object] | None:
    try:
        content = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_manifest(out: Path, content: dict[str, object]) -> None:
    partial = out / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, out / MANIFEST)


def _is_whole(out: Path, found: dict[str, object], wanted: dict[str, object]) -> bool:
    files = found.get("files")
    if not isinstance(files, dict) or any(found.get(key) != value for key, value in wanted.items()):
        return False
    return all((out / name).is_file() and (out / name).stat().st_size == size for name, size in files.items())


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise SyntheticError(f"{path}: a contact sheet is a .png or a .jpg")
    _, encoded = cv2.imencode(path.suffix, picture[:, :, ::-1])
    path.write_bytes(encoded.tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    defaults = Population()
    parser = command_parser(
        "python -m tools.synthetic_faces",
        "Draw faces as a record set to train on, with pairs of other people to verify on.",
        [
            "python -m tools.synthetic_faces data/drawn --identities 100",
            "python -m tools.synthetic_faces --contact-sheet sheet.png",
        ],
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="folder for train.rec, train.idx, property and synthetic.bin"
    )
    parser.add_argument("--identities", type=int, default=defaults.identities, help="people to train on (%(default)s)")
    parser.add_argument("--images-per-identity", type=int, default=defaults.images_per_identity, help="(%(default)s)")
    parser.add_argument(
        "--eval-identities",
        type=int,
        default=defaults.eval_identities,
        help="other people, for verification (%(default)s)",
    )
    parser.add_argument(
        "--pairs", type=int, default=defaults.pairs, help="verification pairs, a multiple of 20 (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="another seed, other people (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that draw (%(default)s, the cores)"
    )
    parser.add_argument(
        "--contact-sheet", type=Path, metavar="FILE", help="also write 8 people x 10 images as one picture (.png, .jpg)"
    )
    options = parser.parse_args(arguments)
    if options.out is None and options.contact_sheet is None:
        parser.error("name a folder OUT for the data set, a --contact-sheet, or both")
    return run_command(options, lambda: _write(options), (DataError, OSError))


def _write(options: argparse.Namespace) -> Outcome:
    population = Population(
        options.identities, options.images_per_identity, options.eval_identities, options.pairs, options.seed
    )
    words: list[str] = []
    facts: dict[str, Any] = {"population": asdict(population)}
    if options.out is not None:
        is_written = render_dataset(options.out, population, workers=options.workers)
        words.append(
            f"{options.out}: {population.identities} identities of {population.images_per_identity} images, "
            f"{population.pairs} verification pairs of {population.eval_identities} others "
            f"({'written' if is_written else 'already there'})"
        )
        facts |= {"folder": options.out, "is_written": is_written}
    if options.contact_sheet is not None:
        _write_picture(options.contact_sheet, contact_sheet(options.seed))
        words.append(f"{options.contact_sheet}: contact sheet written")
        facts["contact_sheet"] = options.contact_sheet
    return Outcome("\n".join(words), facts)


if __name__ == "__main__":
    sys.exit(main())
