"""Contestants of benchmarks.records that are not ours: the clone's data set here, other packages in other Pythons."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from benchmarks.peer import ArcFaceTorch
from dataset import EpochOrder
from sources.records import RecordSource

DATASET, STEPS, REAL = "MXFaceDataset on stand-ins", "MXFaceDataset's mxnet calls alone", "MXFaceDataset"
DALI = "DALI, CPU pipeline"
NAMES = {"steps": STEPS, "dataset": REAL, "pipeline": DALI}


@dataclass
class Speeds:
    """Wall-clock speeds of the rounds, beside those per processor second that the contestants return."""

    wall: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, images: int, cpu: float, wall: float) -> float:
        """Keeps images / wall and returns images / cpu."""
        self.wall.setdefault(name, []).append(images / wall)
        return images / cpu


def stand_in_dataset(
    clone: ArcFaceTorch, source: RecordSource, count: int, speeds: Speeds, stack: ExitStack
) -> Callable[[], float]:
    """The clone's MXFaceDataset in this process, over OpenCV and Pillow where mxnet and torchvision are missing."""
    stack.enter_context(clone.running())
    images = clone.module("dataset").MXFaceDataset(str(source.path.parent), 0)
    chosen = EpochOrder(len(source), 0).indices(0, 0, min(max(count, 1), len(source))).tolist()

    def loop() -> float:
        cpu, wall = time.process_time(), time.perf_counter()
        for index in chosen:
            images[index]
        return speeds.add(DATASET, len(chosen), time.process_time() - cpu, time.perf_counter() - wall)

    return loop


def serve(
    python: str, kind: str, place: Path, clone: str, images: int, speeds: Speeds, stack: ExitStack
) -> tuple[dict[str, Callable[[], float]], dict[str, str], str]:
    """Starts record_peers.py under another Python: contestants and versions, or the reason why there are none."""
    command = [python, str(ROOT / "benchmarks/record_peers.py"), kind, str(place), clone]
    try:
        child = stack.enter_context(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )  # fmt: skip
    except OSError as error:
        return {}, {}, str(error)

    def ask(question: str) -> dict[str, Any]:
        assert child.stdin is not None
        assert child.stdout is not None
        if question:
            child.stdin.write(question + "\n")
            child.stdin.flush()
        answer: dict[str, Any] = json.loads(child.stdout.readline() or '{"error": "it ended"}')
        return answer

    hello = ask("")
    if "error" in hello:
        return {}, {}, hello["error"]

    def contestant(name: str) -> Callable[[], float]:
        def loop() -> float:
            found = ask(f"{name} {images if kind == 'dali' else images // 4}")
            if "error" in found:
                raise RuntimeError(f"{' '.join(command)}: it ended while {name} was measured")
            return speeds.add(NAMES[name], found["images"], found["cpu"], found["wall"])

        return loop

    return {NAMES[name]: contestant(name) for name in hello["contestants"]}, hello["versions"], ""


def images_only(source: RecordSource, stack: ExitStack) -> Path:
    """A folder with the record file and an index of its images alone."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "train.rec").symlink_to(source.path.resolve())
    lines = [f"{key}\t{source.reader.offset(key)}\n" for key in source.reader.image_keys.tolist()]
    (folder / "images.idx").write_text("".join(lines), encoding="ascii")
    return folder
