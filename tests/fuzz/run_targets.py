"""Targets that read what runs write: weights, checkpoints, metrics, reports. No loop here."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from random import Random

import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from backbones.weights import WeightsError, load_weights
from eval.report import write_report
from eval.report_input import ReportError
from tests.fuzz.damage import NUMBERS, WORDS, damaged, pickle_damage
from tests.fuzz.json_damage import json_damage, lines_damage
from tests.fuzz.target import Target, put
from utils.checkpoint_manifest import CheckpointError, read_manifest
from utils.logging import trim_metrics
from utils.safe_metadata import SafeReader, UnsafeFileError
from utils.torch_files import TorchFileError


def _manifest_seeds(folder: Path) -> list[bytes]:
    put(folder, "__0_0.distcp", b"12345678")
    old = {"format": 1, "step": 3, "world_size": 1, "torch": "2", "files": {"__0_0.distcp": 8}, "progress": {"a": [1]}}
    return [json.dumps(old, indent=1).encode()]


def _read_manifest(data: bytes, folder: Path) -> None:
    put(folder, "manifest.json", data)
    read_manifest(folder)


def _checkpoint(folder: Path) -> bytes:
    tensors = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3), "h": torch.zeros(0, 2, dtype=torch.bfloat16)}
    dcp_save(tensors, storage_writer=FileSystemWriter(folder, per_thread_copy_ahead=0), no_dist=True)
    return (folder / ".metadata").read_bytes()


def _read_metadata(data: bytes, folder: Path) -> None:
    put(folder, ".metadata", data)
    metadata = SafeReader(folder).read_metadata()
    for entry in metadata.state_dict_metadata.values():
        torch.empty(entry.size, dtype=entry.properties.dtype)  # type: ignore[union-attr]


def _slice_seeds(folder: Path) -> list[bytes]:
    _checkpoint(folder)
    reader = SafeReader(folder)
    place = reader.read_metadata().storage_data[MetadataIndex("w", torch.Size([0, 0]))]
    content = (folder / place.relative_path).read_bytes()
    return [content[place.offset : place.offset + place.length]]


def _read_slice(data: bytes, folder: Path) -> None:
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    path = put(folder, "slice.distcp", b"12345678" + data)
    with path.open("rb") as file:
        view = SafeReader(folder)._slice_file(file, _StorageInfo("slice.distcp", 8, len(data)))
        try:
            torch.load(view, map_location="cpu", weights_only=True)
        except Exception as error:  # load_checkpoint makes a CheckpointError of whatever torch says
            raise CheckpointError(str(error)) from error


def _weight_seeds(_: Path) -> list[bytes]:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    seeds = []
    for old in (False, True):
        for state in (net.state_dict(), {"epoch": 1, "state_dict_backbone": net.state_dict(), "lr": [0.5]}):
            stream = io.BytesIO()
            torch.save(state, stream, _use_new_zipfile_serialization=not old)
            seeds.append(stream.getvalue())
    return seeds


def _rezip(data: bytes, random: Random) -> bytes:
    """Damage to one member of an archive, names and packing included; to the first pickles of an old file."""
    if data[:2] != b"PK":
        return pickle_damage(data[: random.randrange(40, 2000)], random) + data[-200:]
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        chosen = random.choice(source.namelist()) if random.random() < 0.3 else "data.pkl"
        for member in source.infolist():
            content, name = source.read(member), member.filename
            packing = zipfile.ZIP_STORED
            if name.endswith(chosen):
                way = random.randrange(8)
                if name.endswith("data.pkl") and way < 6:
                    content = pickle_damage(content, random)
                elif way == 6:
                    name, packing = random.choice((name, "../../x", "a/constants.pkl")), zipfile.ZIP_DEFLATED
                else:
                    content = damaged(content, random, [content], [], is_text=False)
            target.writestr(zipfile.ZipInfo(name), content, packing)
    return out.getvalue()


def _metric_seeds(_: Path) -> list[bytes]:
    train = {"kind": "train", "time": 1.5, "step": 2, "epoch": 0, "loss": 3.0, "lr": 0.1, "grad_norm": None}
    scores = {"kind": "verification", "step": 4, "epoch": 1, "dataset": "lfw", "protocol": "insightface", "flip": True,
              "accuracy": 0.9, "accuracy_std": 0.1, "auc": 0.9, "eer": 0.1, "data_sha256": "ab",
              "tar_at_far": {"0.001": 0.5}}  # fmt: skip
    return ["".join(json.dumps(line) + "\n" for line in (train, {**train, "step": 3}, scores)).encode()]


def _read_metrics(data: bytes, folder: Path) -> None:
    put(folder, "metrics.jsonl", data)
    trim_metrics(folder, 3)


def _report_seeds(_: Path) -> list[bytes]:
    config = {"name": "x", "head": "cosface", "seed": 1, "val_targets": ["lfw"]}
    saved = {"targets": {"lfw": {"num_pairs": 6, "num_folds": 2, "protocols": {"a": {"accuracy": 0.5, "auc": 0.1}}}}}
    metrics = _metric_seeds(Path())[0]
    changes = [{"command": "python train.py x", "changed": ["lr: 0.1 -> 0.2"]}]
    fingerprint = {"code": {"files": {"a": "1"}, "commit": "ab"}, "data": {"x": {"y": 2}}}
    origin = {"command": "x", "commit": "ab", "changes": changes, "fingerprint": fingerprint}
    return [metrics + b"\n".join(json.dumps(part).encode() for part in (origin, config, saved))]


def _write_report(data: bytes, folder: Path) -> None:
    parts = data.split(b"\n")
    *metrics, origin, config, saved = [*[b""] * (4 - len(parts)), *parts]
    put(folder, "run.json", origin)
    (folder / "verification").mkdir(exist_ok=True)
    put(folder, "metrics.jsonl", b"\n".join(metrics))
    put(folder, "config.json", config)
    put(folder / "verification", "results.json", saved)
    write_report(folder)


RUN_TARGETS = [
    Target("weights", _weight_seeds, lambda data, folder: load_weights(put(folder, "model.pt", data)), (WeightsError,),
           mutators=(_rezip, _rezip, pickle_damage)),
    Target("manifest", _manifest_seeds, _read_manifest, (CheckpointError,), (*NUMBERS, *WORDS), (json_damage,),
           is_text=True),
    Target("metadata", lambda folder: [_checkpoint(folder)], _read_metadata, (UnsafeFileError,),
           mutators=(pickle_damage,)),
    Target("distcp", _slice_seeds, _read_slice, (TorchFileError, CheckpointError), mutators=(_rezip,)),
    Target("metrics", _metric_seeds, _read_metrics, (), (), (lines_damage,), is_text=True),
    Target("report", _report_seeds, _write_report, (ReportError,), (), (lines_damage,), is_text=True),
]  # fmt: skip
