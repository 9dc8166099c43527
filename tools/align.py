"""Command line: photographs -> aligned 112x112 faces, landmarks.csv and a report of what was missed."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.image_set import open_image_set
from tools.alignment.aligner import (
    Aligner,
    AlignOptions,
    MissError,
    face_in_file,
    make_aligner,
    read_photograph,
)
from tools.alignment.detector import Face
from tools.alignment.landmarks import Landmarks, read_landmarks, require_order
from tools.alignment.options import add_align_options, align_options, align_settings, shown
from tools.alignment.outputs import JOURNAL, LANDMARKS, REPORT, Journal, OutputError, output_names, require_apart
from utils.command_line import FOUND, Outcome, command_parser, run_command
from utils.distributed import available_cores
from utils.errors import DataError
from utils.files import whole_file
from utils.images import encode_jpeg

_EXAMPLES = (
    "python -m tools.align photographs aligned --detector face_detection_yunet_2026may.onnx",
    "python -m tools.align celeba/img_celeba aligned --landmarks celeba/list_landmarks_celeba.txt",
    "python -m tools.align photographs aligned --detector yunet.onnx --face central --min-size 40 --png --json",
)
_WINDOW = 64  # photographs per process between the pool and the journal
_SHOWN = 10
_worker: list[tuple[Aligner, int]] = []  # one aligner a process, made by _prepare


@dataclass(frozen=True)
class Task:
    """One photograph and where its face goes; `face` is None where a detector has to find it."""

    name: str
    source: Path
    output: Path
    face: Face | None


@dataclass(frozen=True)
class Result:
    """What came of a task: a face and how many there were, or a miss."""

    name: str
    face: Face | None
    num_faces: int
    miss: tuple[str, str] | None


def align_folder(options: argparse.Namespace) -> Outcome:
    """Aligns all of IN into OUT.

    Raises:
        DataError: nothing to align, folders or settings that do not fit. Photographs that give no face are no errors.
    """
    chosen = align_options(options)
    settings = {**align_settings(options, chosen), "format": "png" if options.png else f"jpeg {options.quality}"}
    images = open_image_set(options.images, image_format=None)
    if len(images.sources) != len(images.names):
        raise OutputError(f"{options.images}: records hold faces already; align photographs before they are packed")
    landmarks = read_landmarks(options.landmarks) if options.landmarks else None
    outputs = output_names(images.names, ".png" if options.png else ".jpg")
    require_apart(options.images, images.sources, options.output, outputs)
    if landmarks is not None:
        _require_common(landmarks, images.names)
    else:
        make_aligner(chosen, options.detector)  # a wrong model is refused before anything is made
    journal = Journal(options.output, settings, overwrite=options.overwrite)
    tasks, misses, kept = [], [], 0
    for name, source, output in zip(images.names, images.sources, outputs, strict=True):
        if not options.overwrite and journal.is_kept(name, output, source):
            kept += 1
            continue
        try:
            face = None if landmarks is None else face_in_file(landmarks, name)
        except MissError as miss:
            misses.append((name, miss.kind, miss.reason))
            continue
        tasks.append(Task(name, source, options.output / output, face))
    several = []
    try:
        for result in tqdm(
            _results(tasks, options, chosen), total=len(tasks), unit=" images", desc="align", disable=None
        ):
            if result.face is None:
                misses.append((result.name, *(result.miss or ("", ""))))
            else:
                journal.add(result.name, result.face)
                if result.num_faces > 1:
                    several.append((result.name, result.num_faces))
    except BaseException:
        journal.pause()
        raise
    report = _report(options, len(images.names), kept, misses, several)
    journal.finish(report)
    return Outcome(_words(options.output, report), report, FOUND if misses else 0)


def _require_common(landmarks: Landmarks, names: Sequence[str]) -> None:
    if not any(landmarks.get(name) for name in names):
        theirs = next(iter(landmarks.names()))
        raise OutputError(
            f"{landmarks.path} names none of the {len(names)} images: its first is {theirs!r}, the first image is "
            f"{names[0]!r}; names are paths below the folder that is aligned"
        )
    require_order(landmarks, names)


def _results(tasks: Sequence[Task], options: argparse.Namespace, chosen: AlignOptions) -> Iterator[Result]:
    """Results in the order of the tasks, from this process or from several."""
    setup = (chosen, options.detector, 0 if options.png else options.quality)
    workers = min(options.workers, len(tasks))
    if workers <= 1:
        _prepare(*setup, is_child=False)
        yield from map(_work, tasks)
        return
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), _prepare, setup) as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(_work, task))
                    if len(waiting) >= _WINDOW * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except BrokenProcessPool:
        raise OutputError(
            "a worker process was ended, most often because memory ran out: use fewer --workers; the same command goes "
            "on where this one stopped"
        ) from None


def _prepare(chosen: AlignOptions, detector: Path | None, quality: int, is_child: bool = True) -> None:
    if is_child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    cv2.setNumThreads(1)  # processes share the cores
    _worker[:] = [(make_aligner(chosen, detector), quality)]


def _work(task: Task) -> Result:
    aligner, quality = _worker[0]
    try:
        found = aligner.align(read_photograph(task.source), task.face)
    except MissError as miss:
        return Result(task.name, None, 0, (miss.kind, miss.reason))
    task.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(task.output) as stream:
        stream.write(encode_jpeg(found.image, quality) if quality else _png(found.image))
    return Result(task.name, found.face, found.num_faces, None)


def _png(image: NDArray[np.uint8]) -> bytes:
    encoded: bytes = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    return encoded


def _report(
    options: argparse.Namespace,
    count: int,
    kept: int,
    misses: Sequence[tuple[str, str, str]],
    several: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    return {
        "command": options.command,
        "output": shown(str(options.output)),
        "images": count,
        "aligned": count - kept - len(misses),
        "kept": kept,
        "missed": dict(Counter(kind for _, kind, _ in misses)),
        "misses": [{"path": shown(name), "kind": kind, "reason": shown(reason)} for name, kind, reason in misses],
        "several_faces": [{"path": shown(name), "faces": faces} for name, faces in several],
    }


def _words(folder: Path, report: dict[str, Any]) -> str:
    lines = [f"{folder}: {report['aligned']} faces aligned, {report['kept']} kept, of {report['images']} images"]
    if report["several_faces"]:
        lines.append(f"several faces in {len(report['several_faces'])}, one taken of each: see {REPORT}")
    if report["misses"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report["missed"].items()))
        lines.append(f"{len(report['misses'])} missed: {kinds}")
        lines += [
            f"  {m['path']}: {m['kind']}{': ' if m['reason'] else ''}{m['reason']}" for m in report["misses"][:_SHOWN]
        ]
        if len(report["misses"]) > _SHOWN:
            lines.append(f"  ... all of them: {folder / REPORT}")
    lines.append(f"points, boxes and scores: {folder / LANDMARKS}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("python -m tools.align", __doc__.partition(": ")[2], _EXAMPLES)
    parser.add_argument("images", type=Path, metavar="IN", help="folder, list (.txt, .lst) or photograph")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder for the faces; IN's sub-folders are kept")
    add_align_options(parser)
    parser.add_argument("--quality", type=_quality, default=95, help="of the JPEG files, 1 .. 100 (default 95)")
    parser.add_argument("--png", action="store_true", help="write PNG, without loss")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="align again what is there already")
    return parser


def _quality(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no JPEG quality: give a whole number in 1 .. 100")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 where photographs were missed, 2 where nothing could be done, 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command = shlex.join(["python", "-m", "tools.align", *given])
    status = run_command(options, lambda: align_folder(options), (DataError, OSError))
    if status not in (0, FOUND) and os.path.isfile(options.output / JOURNAL):
        print("the same command goes on where this one stopped", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
