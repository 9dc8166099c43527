"""What `records inspect` finds out about a record set: counts, sizes and damage. Parses no command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sources.base import SourceError
from utils.errors import DataError
from utils.images import decode_image
from utils.recordio import RecordError, RecordReader

_SHOWN = 20  # damaged records listed one by one; the rest are counted


@dataclass
class Report:
    """Everything `inspect` prints.

    Attributes:
        damage: one line per finding that makes the set unsafe to train on.
        notes: oddities that training tolerates.
    """

    path: str
    layout: str = "unreadable"
    bytes: int = 0
    records: int = 0
    images: int = 0
    classes: int = 0
    images_per_identity: dict[str, float] = field(default_factory=dict)
    empty_identities: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    decoded: int = 0
    damaged_records: int = 0
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_damage(self, line: str) -> None:
        """Counts a finding, and keeps its text unless there are many."""
        self.damaged_records += 1
        if len(self.damage) < _SHOWN:
            self.damage.append(line)

    def to_dict(self) -> dict[str, object]:
        """The report as JSON-able values."""
        return asdict(self)


def inspect_set(path: Path, *, decode: int) -> Report:
    """Reads a whole set: framing and labels of every record, pixels of `decode` images (all where negative).

    Raises:
        SourceError: no .rec there. Damage is reported, not raised.
    """
    rec = path / "train.rec" if path.is_dir() else path
    if not rec.is_file():
        raise SourceError(f"{rec}: no such file; give a folder that holds train.rec, or a .rec file")
    report = Report(str(rec), bytes=rec.stat().st_size)
    try:
        reader = RecordReader(rec)
    except DataError as error:
        report.add_damage(str(error))
        return report
    with reader:
        report.layout, report.records, report.images = reader.layout, len(reader), len(reader.image_keys)
        if reader.index_path is None:
            report.notes.append(f"no .idx beside {rec.name}: offsets were rebuilt from the .rec, at each start anew")
        if reader.layout == "insightface" and not (rec.parent / "property").is_file():
            report.notes.append("no property file: classes come from the set header, the size from the first image")
        sound = _check_records(reader, report)
        _count_identities(reader, report, sound)
        _decode_some(reader, report, sound, decode)
    return report


def _check_records(reader: RecordReader, report: Report) -> np.ndarray:
    """Walks the records in file order; returns the keys of sound images. Notes bytes that no record covers."""
    try:
        report.classes = reader.num_classes
    except RecordError as error:
        report.add_damage(str(error))
        return np.empty(0, dtype=np.int64)
    offsets = np.array([reader.offset(key) for key in reader.keys.tolist()], dtype=np.int64)
    is_image = np.isin(reader.keys, reader.image_keys)
    sound: list[int] = []
    expected = 0
    for row in tqdm(np.argsort(offsets, kind="stable").tolist(), unit=" records", desc="inspect", disable=None):
        key, offset = int(reader.keys[row]), int(offsets[row])
        if offset != expected:
            relation = "belong to no record" if offset > expected else "belong to two records"
            report.notes.append(f"bytes {min(offset, expected)} .. {max(offset, expected)} {relation} of the index")
            expected = offset
        try:
            expected = reader.end(key)
            if is_image[row]:
                reader.label(key)
                sound.append(key)
        except RecordError as error:
            report.add_damage(str(error))
    if expected < report.bytes:
        report.notes.append(f"bytes {expected} .. {report.bytes} belong to no record of the index")
    return np.sort(np.array(sound, dtype=np.int64))


def _count_identities(reader: RecordReader, report: Report, sound: np.ndarray) -> None:
    """Images per identity, from the labels of the sound images themselves."""
    if not len(sound):
        return
    counts = np.bincount(reader.labels(sound).astype(np.int64), minlength=report.classes)
    present = counts[counts > 0]
    report.empty_identities = int((counts == 0).sum())
    report.images_per_identity = {
        "min": int(present.min()),
        "median": float(np.median(present)),
        "mean": round(float(present.mean()), 2),
        "max": int(present.max()),
    }
    if not report.damage and not np.array_equal(reader.class_counts(), counts):
        report.notes.append("the identity records disagree with the labels of the images; the labels count")


def _decode_some(reader: RecordReader, report: Report, sound: np.ndarray, decode: int) -> None:
    """Decodes images, evenly spread over the set; their sizes go into the report."""
    number = len(sound) if decode < 0 else min(decode, len(sound))
    chosen = sound[np.linspace(0, len(sound) - 1, number).astype(np.int64)] if number else sound[:0]
    sizes: Counter[str] = Counter()
    for key in tqdm(chosen.tolist(), unit=" images", desc="decode", disable=None):
        try:
            image = decode_image(reader.sample(key)[1])
        except DataError as error:
            report.add_damage(f"{reader.path}, record {key}, byte {reader.offset(key)}: {error}")
            continue
        sizes[f"{image.shape[0]}x{image.shape[1]}"] += 1
    report.decoded, report.sizes = number, dict(sizes.most_common())
    stated = reader.image_size
    if len(sizes) > 1:
        report.add_damage(f"images of different sizes: {report.sizes}; training needs one size")
    elif stated is not None and sizes and f"{stated[0]}x{stated[1]}" not in sizes:
        report.add_damage(f"the property file says {stated[0]}x{stated[1]}, the images are {next(iter(sizes))}")


def print_report(report: Report) -> None:
    """The report for people."""
    print(f"{report.path}: {report.bytes:,} bytes, layout {report.layout}")
    print(f"  records     {report.records:,}")
    print(f"  images      {report.images:,}")
    empty = f", {report.empty_identities:,} without an image" if report.empty_identities else ""
    print(f"  identities  {report.classes:,}{empty}")
    if report.images_per_identity:
        print("  per identity " + ", ".join(f"{name} {value:g}" for name, value in report.images_per_identity.items()))
    if report.sizes:
        sizes = ", ".join(f"{size} ({count:,})" for size, count in report.sizes.items())
        print(f"  sizes       {sizes}, from {report.decoded:,} decoded images")
    for note in report.notes[:_SHOWN]:
        print(f"  note: {note}")
    if not report.damage:
        print("  no damage found")
        return
    print(f"  DAMAGE in {report.damaged_records:,} places:")
    for line in report.damage:
        print(f"    {line}")
    if report.damaged_records > len(report.damage):
        print(f"    ... and {report.damaged_records - len(report.damage):,} more")
