"""Command line: images -> a file of embeddings with names and identities, resumable, on any number of processes."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from backbones import WeightsError
from eval.embedder import EmbedderError, find_weights, load_embedder
from eval.embedding_set import SUFFIXES, EmbeddingSetError
from eval.image_set import ImageSet, RecordImages, open_image_set
from eval.parquet_embeddings import require_pyarrow
from tools.alignment.aligner import make_aligner
from tools.alignment.detector import DetectorError
from tools.alignment.landmarks import read_landmarks, require_order
from tools.alignment.options import (
    add_align_options,
    add_model_options,
    align_options,
    align_settings,
    positive,
    shown,
)
from tools.embedding_parts import PartFolder, parts_folder
from tools.embedding_run import begin_parts, embed_parts
from tools.face_reading import FaceReader
from utils.command_line import FOUND, Outcome, command_parser, run_command
from utils.distributed import RankError, Ranks, available_cores, start_ranks, stop_ranks
from utils.errors import DataError
from utils.files import sha256_of
from utils.memory import prefer_huge_pages

_EXAMPLES = (
    "python -m tools.embed --model work_dirs/quickstart aligned -o people.npz",
    "python -m tools.embed --model model.onnx train.rec -o train.parquet --batch-size 256",
    "python -m tools.embed --model run photographs -o people.npz --align --detector yunet.onnx --skip-bad",
    "torchrun --nproc_per_node=4 -m tools.embed --model run aligned -o people.npz",
)
_PATIENCE = timedelta(days=7)  # ranks wait for each other's last parts, however long those take
_SHOWN = 10


def embed_set(options: argparse.Namespace, ranks: Ranks) -> Outcome | None:
    """Embeds a set and writes the file; every rank calls it, the main one has something to tell.

    Raises:
        DataError: images, model or options that do not fit, an unreadable image without --skip-bad, a failed rank.
    """
    images, reader, settings = _open(options)
    weights = find_weights(options.model, options.checkpoint)
    about: dict[str, Any] = {
        "command": options.command,
        "weights": str(weights),
        "weights_sha256": sha256_of(weights),
        "data": str(options.input),
        "flip": options.flip,
        "precision": options.precision,
        "batch_size": options.batch_size,
        "align": settings,
        "detector_sha256": None if settings is None else settings["detector_sha256"],
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "opencv": cv2.__version__},
    }
    part_of_plan = {key: value for key, value in about.items() if key not in ("command", "weights", "data")}
    plan = {**part_of_plan, "part": options.part, "device": ranks.device.type,
            "images": len(images.names), "listing_sha256": _listing(images)}  # fmt: skip
    parts = PartFolder(options.output, plan, len(images.names), options.part, partial(_stamp, images))
    missing = begin_parts(parts, options.output, ranks, restart=options.restart)
    embedder = load_embedder(weights, network=options.network, device=ranks.device, precision=options.precision)
    started = time.monotonic()
    with ThreadPoolExecutor(1) as beside:  # reads all bytes once more, while the model computes
        data_hash = beside.submit(_data_hash, images) if ranks.is_main else None
        waited = embed_parts(
            embedder, reader, parts, missing, ranks,
            batch_size=options.batch_size, flip=options.flip, readers=options.readers,
        )  # fmt: skip
    if data_hash is None:
        return None
    seconds = time.monotonic() - started
    about = {**about, "data_sha256": data_hash.result(), "num_images": len(images.names)}
    skipped = parts.assemble(images, about)
    embedded = sum(map(len, missing))
    return _outcome(
        options, about, images, skipped, embedded=embedded, seconds=round(seconds, 3), waited=round(waited, 3)
    )


def _data_hash(images: ImageSet) -> str | None:
    """None where a file cannot be read, which is told where it is embedded."""
    try:
        return images.sha256()
    except DataError:
        return None


def _open(options: argparse.Namespace) -> tuple[ImageSet, FaceReader, dict[str, Any] | None]:
    """The images, what reads them, and the settings of alignment; all that can be wrong with them is found here."""
    if options.output.suffix not in SUFFIXES:
        raise EmbeddingSetError(f"{options.output}: embeddings are kept in {' or '.join(SUFFIXES)}")
    if options.output.suffix == ".parquet":
        require_pyarrow()
    if options.output.is_dir():
        raise EmbeddingSetError(f"{options.output} is a folder; name a file in it, such as {options.output / 'a.npz'}")
    if options.output.exists() and not options.overwrite:
        raise EmbeddingSetError(f"{options.output} is already there: choose another name, or add --overwrite")
    if not options.align:
        if options.detector or options.landmarks:
            raise DetectorError("--detector and --landmarks are for --align; without it images must be aligned already")
        images = open_image_set(options.input)
        return images, FaceReader(images, skips_bad=options.skip_bad), None
    chosen = align_options(options)
    settings = align_settings(options, chosen)
    images = open_image_set(options.input, image_format=None)
    landmarks = read_landmarks(options.landmarks) if options.landmarks else None
    if landmarks is not None:
        require_order(landmarks, images.names)
    make_aligner(chosen, options.detector)  # a wrong model is refused before the work, not skipped image by image
    reader = FaceReader(
        images, skips_bad=options.skip_bad, align=chosen, detector=options.detector, landmarks=landmarks
    )
    return images, reader, settings


def _listing(images: ImageSet) -> str:
    """SHA-256 over names and identities: whether a stopped run was about the same images."""
    digest = hashlib.sha256(np.ascontiguousarray(images.labels).tobytes())
    for name in itertools.chain(images.names, images.identities):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _stamp(images: ImageSet, part: range) -> str:
    """Changes when one of these images' files does: from their sizes and times."""
    digest = hashlib.sha256()
    paths = images.sources[part.start : part.stop]
    if isinstance(images.images, RecordImages):
        paths = [images.images.reader.path]
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(b"gone\n")
    return digest.hexdigest()[:16]


def _outcome(
    options: argparse.Namespace,
    about: dict[str, Any],
    images: ImageSet,
    skipped: Sequence[tuple[int, str]],
    **told: Any,
) -> Outcome:
    misses = [{"name": shown(str(images.names[index])), "reason": shown(reason)} for index, reason in skipped]
    count = len(images.names) - len(skipped)
    lines = [
        f"{options.output}: {count} embeddings of {len(images.names)} images, weights {about['weights_sha256'][:16]}"
    ]
    if told["embedded"] < len(images.names):
        lines.append(f"{len(images.names) - told['embedded']} images were embedded by an earlier run")
    if told["embedded"]:
        rate = told["embedded"] / max(told["seconds"], 1e-9)
        lines.append(
            f"{told['seconds']:.1f} s, {rate:.0f} images/s; the model waited {told['waited']:.1f} s for images"
        )
    if misses:
        lines.append(f"{len(misses)} images skipped (all are named in the file's `about`):")
        lines += [f"  {miss['name']}: {miss['reason']}" for miss in misses[:_SHOWN]]
    facts = {**about, **told, "output": options.output, "embeddings": count, "skipped": misses}
    return Outcome("\n".join(lines), facts, FOUND if misses else 0)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("python -m tools.embed", __doc__.partition(": ")[2], _EXAMPLES)
    parser.add_argument("input", type=Path, metavar="IN", help="folder, list (.txt, .lst), train.rec or one image")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file, .npz or .parquet")
    parser.add_argument("--model", required=True, help="run folder, model.pt, backbone.pth or model.onnx")
    parser.add_argument("--align", action="store_true", help="IN holds photographs: align them on the way")
    add_align_options(parser)
    add_model_options(parser)
    parser.add_argument("--batch-size", type=positive, default=64, help="images per forward pass on each rank")
    parser.add_argument("--readers", type=_count, default=min(4, available_cores()), help="threads that read ahead")
    parser.add_argument("--part", type=positive, default=4096, help="images between savings (default 4096)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be used, and report them")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it is there")
    parser.add_argument("--restart", action="store_true", help="throw away what a stopped run has embedded")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) > 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads: give 0 .. 256")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 where images were skipped, 2 where nothing could be done, 130 after Ctrl-C."""
    prefer_huge_pages()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    if os.environ.get("RANK", "0") != "0":
        options.json = False  # one object on stdout, not one per rank
    options.command = shlex.join(["python", "-m", "tools.embed", *given])

    def work() -> Outcome | None:
        ranks = start_ranks(options.device, timeout=_PATIENCE)
        try:
            return embed_set(options, ranks)
        finally:
            stop_ranks()

    status = run_command(options, work, (DataError, EmbedderError, RankError, WeightsError, OSError))
    if status not in (0, FOUND) and parts_folder(options.output).is_dir():
        print("what is embedded is kept: the same command goes on where this one stopped", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
