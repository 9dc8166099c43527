"""Where a loader's time goes: the steps from record to batch, each in a loop of its own. For benchmarks.records."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from dataset import EpochOrder, build_loader
from sources.records import RecordSource
from utils.augmentation import place_augmented
from utils.images import _COLOR, decode_image
from utils.permutation import derive_keys, keyed_hash

DECODE, CHECKS, REST = "decoding", "checks around it", "rest: loop, labels, DataLoader"


def stages(source: RecordSource, batch: int, *, rounds: int, batches: int = 24) -> dict[str, float]:
    """Microseconds of processor time an image of each stage, in the order in which a batch passes them.

    Each is a median over rounds. "rest" is the whole loader less the stages, so all of them sum to the whole; it can
    come out negative where the stages overlap less in the caches apart than together.
    """
    batches = max(1, min(batches, len(source) // batch))
    order, reader = EpochOrder(len(source), 0), source.reader
    spans = [(number * batch, (number + 1) * batch) for number in range(batches)]
    indices = [int(index) for start, stop in spans for index in order.indices(0, start, stop)[:batch]]
    payloads = [reader.sample(int(reader.image_keys[index]))[1] for index in indices]
    images = [decode_image(payload) for payload in payloads[:batch]]
    rows = np.empty((batch, *source.image_format.shape), np.uint8)

    def all_of(step: Callable[[Any], object], over: Sequence[Any]) -> Callable[[], None]:
        def loop() -> None:
            for item in over:  # nothing is kept: new memory for every image would be measured with it
                step(item)

        return loop

    def load() -> None:
        for _ in build_loader(
            source, seed=0, batch_size=batch, rank=0, world_size=1, first_batch=0, last_batch=batches, num_workers=0
        ):
            pass

    loops: dict[str, Callable[[], None]] = {
        "order and draws": all_of(lambda span: _draw(order, *span), [(0, len(indices))]),
        "record: place, header, label": all_of(lambda index: _look_up(source, index), indices),
        DECODE: all_of(lambda payload: cv2.imdecode(np.frombuffer(payload, np.uint8), _COLOR), payloads),
        CHECKS: all_of(lambda payload: decode_image(payload, source.image_format), payloads),
        "mirror or copy into the batch": all_of(
            lambda row: place_augmented(images[row % batch], rows[row % batch], row, "flip"), range(len(indices))
        ),
        REST: load,
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            start = time.process_time()
            loop()
            times[name].append((time.process_time() - start) / len(indices) * 1e6)
        times[CHECKS][-1] -= times[DECODE][-1]
        times[REST][-1] -= sum(own[-1] for name, own in times.items() if name != REST)
    return {name: statistics.median(own) for name, own in times.items()}


def _draw(order: EpochOrder, start: int, stop: int) -> None:
    indices = order.indices(0, start, stop)
    keyed_hash(indices.astype(np.uint64), derive_keys(1, 0, 0, 2)[0])


def _look_up(source: RecordSource, index: int) -> None:
    key = int(source.reader.image_keys[index])
    header, _ = source.reader.sample(key)
    source.reader.checked_label(key, header)
