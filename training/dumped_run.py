"""From a dump of a bad step back to a run that stands right before it. Writes nothing, trains nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset import Batch
from training.build import build_run
from training.dump import FORMAT, MANIFEST, SHARED
from training.inputs import Inputs
from training.run import Run
from utils.class_index import ClassIndex
from utils.config import Config
from utils.distributed import Ranks
from utils.image_format_file import from_json
from utils.images import ImageFormat
from utils.torch_files import check_torch_file

_WANTED: dict[str, type | tuple[type, ...]] = {
    "step": int, "world_size": int, "threads": int, "loss": str, "loss_scale": (int, float), "device": str, "text": str,
    "batch_sizes": list, "image_format": dict, "num_classes": int, "num_images": int, "ranks": list, "config": dict,
}  # fmt: skip


class DumpError(ValueError):
    """A folder that is no dump, or one that cannot be run again: which, why, and what to do."""


@dataclass(frozen=True)
class Dump:
    """A dump's folder and what its manifest says."""

    folder: Path
    facts: Mapping[str, Any]
    config: Config

    @property
    def world_size(self) -> int:
        """Ranks of the run."""
        return int(self.facts["world_size"])

    def load(self, name: str) -> dict[str, Any]:
        """The tensors of one of its files, on the CPU.

        Raises:
            DumpError: missing, damaged, or holding anything else than tensors.
        """
        path = self.folder / name
        try:
            with path.open("rb") as stream:  # a dump may come from somebody else
                check_torch_file(stream, path.stat().st_size, old_format=False)
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DumpError(f"{path}: cannot be read ({reason}): the dump is incomplete or damaged") from error
        if not isinstance(content, dict):
            raise DumpError(f"{path}: holds a {type(content).__name__}, not named tensors: this is no file of a dump")
        return content


@dataclass(frozen=True)
class _DumpedSource:
    """What a run asks of its training data, without the data."""

    image_format: ImageFormat
    num_classes: int
    num_images: int
    counts: np.ndarray

    def __len__(self) -> int:
        return self.num_images

    def read(self, index: int) -> tuple[np.ndarray, int]:
        # Asked for by what only describes the data; the step's own images are in the dump.
        return np.zeros(self.image_format.shape, dtype=np.uint8), 0

    def class_counts(self) -> np.ndarray:
        return self.counts

    def class_index(self) -> ClassIndex:
        raise DumpError("a dump does not hold which images belong to a class")

    def describe(self) -> dict[str, object]:
        return {"kind": "dump", "path": "", "images": len(self), "classes": self.num_classes}


def read_dump(folder: Path) -> Dump:
    """Reads a dump's manifest.

    Raises:
        DumpError: this is no dump, or one of another version.
    """
    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DumpError(f"{path}: cannot be read ({error}): give the folder step_... that a run wrote") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise DumpError(f"{path}: not a dump of format {FORMAT}, which this version reads")
    wrong = [name for name, kind in _WANTED.items() if not isinstance(facts.get(name), kind)]
    if wrong or not 1 <= facts["world_size"] == len(facts["ranks"]):
        raise DumpError(f"{path}: {', '.join(wrong) or 'ranks'} missing or of another type: the dump is damaged")
    return Dump(folder, facts, Config.from_dict(facts["config"], where=str(path)))


def rebuild(dump: Dump, ranks: Ranks) -> tuple[Run, list[Batch]]:
    """The run as it stood before the dumped step, and the step's batches of this rank; collective.

    Raises:
        DumpError: a file is missing or damaged, or does not fit the config.
    """
    facts, shared = dump.facts, dump.load(SHARED)
    own = dump.load(f"rank_{ranks.rank:03d}.pt")
    try:
        source = _DumpedSource(
            from_json(facts["image_format"], str(dump.folder)), facts["num_classes"], facts["num_images"],
            shared["class_counts"].numpy(),
        )  # fmt: skip
        config = replace(dump.config, output="", val_targets=(), resume=False, init_from=None)
        run = build_run(config, ranks, Inputs(source))
        run.scaler.scale = float(facts["loss_scale"])
        _fill(dict(run.backbone.named_parameters()), shared["backbone"])
        _fill(dict(run.backbone.named_buffers()), own["buffers"])
        _fill(run.fc.head.state_dict(), shared["head"])
        _fill({"prototypes": run.fc.weight}, {"prototypes": own["prototypes"]})
        run.set_schedule(facts["step"])
        sizes = [tuple(map(int, each)) for each in facts["batch_sizes"]]
        parts = zip(own["images"], own["labels"], sizes, strict=True)
        return run, [Batch(images, labels, each) for images, labels, each in parts]
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise DumpError(f"{dump.folder}: does not fit together ({type(error).__name__}: {error})") from error


@torch.no_grad()
def _fill(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    if tensors.keys() != values.keys():
        raise DumpError(f"other tensors than this code's: {sorted(tensors.keys() ^ values.keys())[:3]}")
    for name, tensor in tensors.items():
        if tensor.shape != values[name].shape:
            raise DumpError(f"{name} is {tuple(values[name].shape)}, here {tuple(tensor.shape)}")
        tensor.copy_(values[name])
