"""Everything that reproduces one bad step, in a folder that can be sent away; tools.replay reads it. No training."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset import Batch, KnownClasses
from training.provenance import describe_run
from training.run import Run
from utils.distributed import gather_objects
from utils.files import sync_folder, whole_file, write_text_whole
from utils.image_format_file import to_json

DUMPS = "dumps"
MANIFEST = "dump.json"
SHARED = "shared.pt"
FORMAT = 1
MAX_DUMPS = 3  # of one run: each holds all weights once, and the first ones tell most
_RESERVE = 1 << 30  # bytes that stay free: the run may go on and wants to save


@dataclass(frozen=True)
class Evidence:
    """One bad step on this rank.

    Attributes:
        batches: its micro-batches.
        step: which one.
        loss: as the host saw it.
        loss_scale: with which it ran.
        embeddings: of each micro-batch.
    """

    batches: Sequence[Batch]
    step: int
    loss: float
    loss_scale: float
    embeddings: Sequence[Tensor]


def write_dump(run: Run, evidence: Evidence, text: str) -> str:
    """Writes `output/dumps/step_000000123`, whole or not at all; collective. The buffers must be put back before.

    It holds the config, the weights of the backbone and the head, all prototypes, the buffers and the batches of every
    rank: what decides loss and gradients. The optimizer's state, which decides only the update that was not made, is
    left out. Of a run's bad steps the first `MAX_DUMPS` are kept, and none where the disk has no room for it.

    Args:
        run: the run, gradients still in place.
        evidence: the step.
        text: what was wrong, in words.

    Returns:
        Where the dump is, or why there is none, for the end of a sentence. A dump that fails must not hide its cause.
    """
    if not run.config.output:
        return "no dump: the run has no folder"
    final = Path(run.config.output) / DUMPS / f"step_{evidence.step:09d}"
    partial = final.with_name(f".{final.name}.partial")
    files = {f"rank_{run.ranks.rank:03d}.pt": _own_part(run, evidence)}
    if run.ranks.is_main:
        files[SHARED] = _shared_part(run)
    size = sum(gather_objects(sum(map(_bytes_of, files.values()))))
    own: list[dict[str, Any]] = []

    def hash_all() -> None:
        own.append(fingerprint(run, evidence.embeddings))

    problem = (
        _stage(run, lambda: _prepare(final, partial, size), is_mains=True)
        or _stage(run, lambda: _save(partial, files))
        or _stage(run, hash_all)
    )
    if problem is None:
        hashes = gather_objects(own[0])
        manifest = _manifest(run, evidence, text, hashes)
        problem = _stage(run, lambda: _complete(final, partial, manifest), is_mains=True)
    if problem is not None:
        if run.ranks.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        return f"no dump: {problem}"
    return f"`python -m tools.replay {final}` runs this step again ({size / 1e6:.0f} MB)"


def _stage(run: Run, action: Callable[[], str | None], *, is_mains: bool = False) -> str | None:
    """One stage on all ranks, or on the main one alone; the first problem that any of them met, on every rank."""
    problem = _attempt(action) if run.ranks.is_main or not is_mains else None
    return next((text for text in gather_objects(problem) if text is not None), None)


def fingerprint(run: Run, embeddings: Sequence[Tensor]) -> dict[str, Any]:
    """Hashes of this rank's embeddings and gradients: equal where two steps are equal bit for bit."""
    gradients = {name: parameter.grad for name, parameter in run.backbone.named_parameters()}
    gradients |= {f"head.{name}": parameter.grad for name, parameter in run.fc.head.named_parameters()}
    rows = {f"prototypes.{place}": waiting.gradient for place, waiting in enumerate(run.fc.row_gradients())}
    return {
        "embeddings": [_digest(tensor) for tensor in embeddings],
        "gradients": {name: _digest(value) for name, value in {**gradients, **rows}.items() if value is not None},
    }


def _own_part(run: Run, evidence: Evidence) -> dict[str, Any]:
    return {
        "prototypes": run.fc.weight.detach(),
        "buffers": {name: tensor.detach() for name, tensor in run.backbone.named_buffers()},
        "images": [batch.images for batch in evidence.batches],
        "labels": [batch.labels for batch in evidence.batches],
    }


def _shared_part(run: Run) -> dict[str, Any]:
    return {
        "backbone": {name: tensor.detach() for name, tensor in run.backbone.named_parameters()},
        "head": {name: tensor.detach() for name, tensor in run.fc.head.state_dict().items()},
        "class_counts": torch.from_numpy(KnownClasses(run.source, run.config.bad_records).class_counts()),
    }


def _manifest(run: Run, evidence: Evidence, text: str, hashes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "text": text,
        "step": evidence.step,
        "world_size": run.ranks.world_size,
        "device": run.ranks.device.type,
        "threads": torch.get_num_threads(),
        "loss": repr(evidence.loss),  # JSON has no infinity and no NaN
        "loss_scale": evidence.loss_scale,
        "batch_sizes": [list(batch.batch_sizes) for batch in evidence.batches],
        "image_format": to_json(run.source.image_format),
        "num_classes": run.source.num_classes,
        "num_images": len(run.source),
        "ranks": hashes,
        "config": run.config.to_dict(),
        "provenance": describe_run(run, sys.argv[1:]),
    }


def _prepare(final: Path, partial: Path, size: int) -> str | None:
    """What speaks against a dump, or None and an empty folder for it."""
    others = [path for path in final.parent.glob("step_*") if path != final]
    if len(others) >= MAX_DUMPS:
        return f"{final.parent} holds {len(others)} already"
    final.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(final.parent).free
    if free < size + _RESERVE:
        return f"it needs {size / 1e9:.1f} GB and a reserve of {_RESERVE / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return None


def _save(partial: Path, files: Mapping[str, dict[str, Any]]) -> str | None:
    if not partial.is_dir():
        return f"{partial} is not visible to all ranks"
    for name, content in files.items():
        with whole_file(partial / name) as stream:
            torch.save(_on_cpu(content), stream)
    return None


def _complete(final: Path, partial: Path, manifest: Mapping[str, Any]) -> str | None:
    write_text_whole(json.dumps(manifest, indent=1, allow_nan=False) + "\n", partial / MANIFEST)
    if final.exists():  # a resumed run met the same step again
        shutil.rmtree(final)
    partial.rename(final)
    sync_folder(final.parent)
    return None


def _attempt(action: Callable[[], str | None]) -> str | None:
    try:
        return action()
    except Exception as error:  # a full disk, a folder without rights, or torch's own errors for either
        return f"{type(error).__name__}: {error}"


def _on_cpu(content: Any) -> Any:
    """The same with tensors on the CPU and without memory that is only shared with others."""
    if isinstance(content, Tensor):
        return content.cpu().clone() if content.untyped_storage().nbytes() > content.nbytes else content.cpu()
    if isinstance(content, dict):
        return {name: _on_cpu(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(value) for value in content]
    return content


def _bytes_of(content: Any) -> int:
    if isinstance(content, Tensor):
        return content.nbytes
    values = content.values() if isinstance(content, dict) else content
    return sum(_bytes_of(value) for value in values)


def _digest(tensor: Tensor) -> str:
    """Of the numbers bit for bit, except that one NaN is as good as another."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    flat = torch.where(flat.isnan(), torch.full_like(flat, torch.nan), flat)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
