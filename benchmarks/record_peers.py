"""Other people's record readers as child programs of another Python, which may have neither torch nor this project.

Usage: PYTHON benchmarks/record_peers.py (mxnet | dali) FOLDER [ARCFACE_TORCH]

The first line printed lists what can be measured: {"contestants": [...], "versions": {...}} or {"error": "why not"}.
Then each line "CONTESTANT IMAGES" read is answered by {"images": .., "cpu": seconds, "wall": seconds} of one run on
one thread; the end of the input ends it. Nothing here is imported by the rest.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Callable  # noqa: UP035  # also runs on Python 3.8

SEED = 2048
DALI_BATCH = 128


def main() -> int:
    """Serves one kind of reader until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print; only answers may reach the reader
    try:
        contestants, versions = {"mxnet": open_mxnet, "dali": open_dali}[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # whatever fails, the caller prints it in the place of figures
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), file=answers)
        return 1
    print(json.dumps({"contestants": list(contestants), "versions": versions}), file=answers)
    for line in sys.stdin:
        name, count = line.split()
        cpu, wall = time.process_time(), time.perf_counter()
        images = contestants[name](int(count))
        found = {"images": images, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps(found), file=answers)
    return 0


def open_mxnet(folder: str, clone: str = "") -> tuple[Any, dict[str, str]]:
    """`steps`: what MXFaceDataset.__getitem__ calls up to the pixels. `dataset`: itself, where torch, cv2, PIL are."""
    mx = import_module("mxnet")

    rec, idx = str(Path(folder) / "train.rec"), str(Path(folder) / "train.idx")
    records = mx.recordio.MXIndexedRecordIO(idx, rec, "r")
    header, _ = mx.recordio.unpack(records.read_idx(0))
    keys = range(1, int(header.label[0])) if header.flag > 0 else list(records.keys)

    def steps(count: int) -> int:
        for index in random.Random(SEED).sample(range(len(keys)), min(count, len(keys))):
            _, encoded = mx.recordio.unpack(records.read_idx(keys[index]))
            mx.image.imdecode(encoded).asnumpy()
        return min(count, len(keys))

    contestants: dict[str, Callable[[int], int]] = {"steps": steps}
    versions = {"mxnet": mx.__version__}
    if clone:
        sys.path[:0] = [clone, str(Path(__file__).resolve().parent.parent)]
        try:
            sys.modules.update(import_module("benchmarks.stand_ins").missing_packages())  # torchvision
            images = import_module("dataset").MXFaceDataset(folder, 0)  # the clone's own
            import_module("torch").set_num_threads(1)
        except ImportError:
            return contestants, versions

        def whole(count: int) -> int:
            for index in random.Random(SEED).sample(range(len(images)), min(count, len(images))):
                images[index]
            return min(count, len(images))

        contestants["dataset"] = whole
    return contestants, versions


def open_dali(folder: str, _: str = "") -> tuple[Any, dict[str, str]]:
    """`pipeline`: record reader, CPU decoder and random mirror of DALI, one thread, to uint8 batches.

    It fails on records without pixels (set header, identities), so `folder` holds an images.idx that leaves them out.
    """
    dali, fn, types = (import_module(f"nvidia.dali{part}") for part in ("", ".fn", ".types"))

    def pipeline() -> Any:
        rec, idx = str(Path(folder) / "train.rec"), str(Path(folder) / "images.idx")
        encoded, labels = fn.readers.mxnet(path=rec, index_path=idx, random_shuffle=True, initial_fill=1024)
        decoded = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        return fn.flip(decoded, horizontal=fn.random.coin_flip(probability=0.5)), labels

    made = dali.pipeline_def(pipeline)(batch_size=DALI_BATCH, num_threads=1, device_id=None, seed=SEED)
    made.build()

    def run(count: int) -> int:
        batches = max(1, count // DALI_BATCH)
        for _ in range(batches):
            images, labels = made.run()
            images.as_array(), labels.as_array()
        return batches * DALI_BATCH

    return {"pipeline": run}, {"dali": dali.__version__}


if __name__ == "__main__":
    sys.exit(main())
