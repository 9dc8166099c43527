"""Targets of the record commands: a .rec walked without its index, a .lst, what an interrupted `pack` left. No loop."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sources.base import SourceError
from tests.fuzz.data_targets import _PNG, _record_seeds
from tests.fuzz.target import Target, put
from tools.record_commands import pack
from tools.record_commands.image_lists import list_images
from tools.record_commands.set_checks import check_damage, check_index, check_set
from tools.record_commands.walked_set import Findings, walk_set
from utils.errors import DataError
from utils.record_framing import MAGIC_BYTES, RecordError
from utils.record_names import RecordNames, identity_names
from utils.record_set import WrittenPart
from utils.record_walk import walk_file


def _verify(data: bytes, folder: Path) -> None:
    """Whatever the bytes: the stretches cover them, and what is wrong is told, not raised."""
    rec = put(folder / "faces", "train.rec", data)
    place = 0
    for stretch in walk_file(rec):
        assert stretch.offset == place < stretch.end
        place = stretch.end
    assert place == len(data)
    walked, findings = walk_set(rec, decode=True, threads=1), Findings()
    index = rec.with_suffix(".idx")
    check_damage(walked, index, findings)
    check_set(rec, walked, check_index(index if len(data) % 2 else None, walked, findings), findings)
    if findings.counts:
        raise RecordError(rec, None, None, str(findings.counts))


def _names_seeds(folder: Path) -> list[bytes]:
    return [
        b"1\t0\tann/0.jpg\n2\t0\tann/1.jpg\n3\t1\tbob/0.jpg\n",
        b"3\t1.0\t0.5\tb/c.png\r\n1\t0.0\t0.5\ta/b.png\r\n2\t0.0\t9\ta/c.png",
    ]


def _read_names(data: bytes, folder: Path) -> None:
    with RecordNames(put(folder, "train.lst", data)) as names:
        keys = [key for key in range(1, 4) if names.name(key) is not None]
        identity_names(names, np.array(keys), np.array([0, 0, 1][: len(keys)]), 2)


def _list_seeds(folder: Path) -> list[bytes]:
    return [b"1\t0\tann/0.jpg\n2\t1\tbob/1.jpg\n", b"7\t3.000000\ta.jpg\n8\t0\tb.jpg"]


def _read_list(data: bytes, folder: Path) -> None:
    images = list_images(put(folder, "list.lst", data), None)
    assert len(list(images.names())) == len(images) > 0


def _progress_seeds(folder: Path) -> list[bytes]:
    (folder / "images" / "ann").mkdir(parents=True, exist_ok=True)
    for name in ("0.png", "1.png"):
        put(folder / "images" / "ann", name, _PNG)
    treatment = asdict(pack.Treatment((8, 8), False))
    written = asdict(WrittenPart(1, 60, 8, 12))
    return [json.dumps({"treatment": treatment, "listing": "0" * 64, "written": written}).encode()]


def _read_progress(data: bytes, folder: Path) -> None:
    """Another's progress is never believed: packing begins anew and ends well."""
    output = folder / "set"
    output.mkdir(exist_ok=True)
    put(output, pack.PROGRESS, data)
    images = list_images(folder / "images", None)
    assert pack.pack(images, output, pack.Treatment((8, 8), False), threads=1) == 0
    json.loads(data)["written"]["images"] + 0


RECORD_TARGETS = [
    Target(
        "verify",
        lambda folder: _record_seeds(folder)[:1],
        _verify,
        (RecordError,),
        (MAGIC_BYTES,),
        memory_constant=300 << 20,
    ),
    Target("lst", _names_seeds, _read_names, (RecordError,), is_text=True),
    Target("pack_list", _list_seeds, _read_list, (DataError, SourceError), is_text=True),
    Target(
        "progress", _progress_seeds, _read_progress, (ValueError, TypeError, KeyError, RecursionError), is_text=True
    ),
]
