"""What `records inspect` finds out about a record set: counts, sizes and damage. Parses no command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tools.record_commands.colours import WORDS, ColourCheck
from tools.record_commands.image_kinds import suffix_of
from tools.record_commands.set_pictures import contact_sheet, draw_histogram, write_png
from utils.errors import DataError
from utils.images import decode_image
from utils.recordio import RecordError, RecordReader

_SHOWN = 20  # damaged records listed one by one; the rest are counted
_RELEASED = 1 << 13  # records after which the map is let go: its pages count as this process's memory


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
    formats: dict[str, int] = field(default_factory=dict)
    colours: dict[str, object] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)
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


def inspect_set(rec: Path, *, decode: int, sheet: Path | None = None, histogram: Path | None = None) -> Report:
    """Reads a whole set: framing and labels of every record, pixels of `decode` images (all where negative).

    Damage is reported, not raised.

    Args:
        rec: the .rec file.
        decode: how many images to decode.
        sheet: where to draw some images, as PNG.
        histogram: where to draw how many images the identities have.
    """
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
        labels = _labels(reader, sound)
        counts = _count_identities(reader, report, sound, labels)
        _decode_some(reader, report, sound, decode)
        if len(sound) and sheet is not None:
            write_png(contact_sheet(reader, sound, labels), sheet)
            report.pictures.append(str(sheet))
        if len(sound) and histogram is not None:
            draw_histogram(counts, histogram)
            report.pictures.append(str(histogram))
    return report


def _check_records(reader: RecordReader, report: Report) -> np.ndarray:
    """Walks the records in file order; returns the keys of sound images. Notes bytes that no record covers."""
    try:
        report.classes = reader.num_classes
    except RecordError as error:
        report.add_damage(str(error))
        return np.empty(0, dtype=np.int64)
    offsets = reader.offsets(reader.keys)
    is_image = np.isin(reader.keys, reader.image_keys)
    sound: list[int] = []
    expected = 0
    order = np.argsort(offsets, kind="stable").tolist()
    for number, row in enumerate(tqdm(order, unit=" records", desc="inspect", disable=None)):
        if number % _RELEASED == _RELEASED - 1:
            reader.close()
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


def _labels(reader: RecordReader, keys: np.ndarray) -> np.ndarray:
    """Labels of sound images, int64 (K,)."""
    labels = np.empty(len(keys), dtype=np.int64)
    for start in range(0, len(keys), _RELEASED):
        labels[start : start + _RELEASED] = reader.labels(keys[start : start + _RELEASED])
        reader.close()
    return labels


def _count_identities(reader: RecordReader, report: Report, sound: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images per identity, int64 (C,), from the labels of the sound images themselves."""
    counts = np.bincount(labels, minlength=report.classes)
    if not len(sound):
        return counts
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
    return counts


def _decode_some(reader: RecordReader, report: Report, sound: np.ndarray, decode: int) -> None:
    """Decodes images, evenly spread over the set; their sizes go into the report."""
    number = len(sound) if decode < 0 else min(decode, len(sound))
    chosen = sound[np.linspace(0, len(sound) - 1, number).astype(np.int64)] if number else sound[:0]
    sizes: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    colours = ColourCheck()
    for place, key in enumerate(tqdm(chosen.tolist(), unit=" images", desc="decode", disable=None)):
        if place % _RELEASED == _RELEASED - 1:
            reader.close()
        try:
            payload = reader.sample(key)[1]
            image = decode_image(payload)
        except DataError as error:
            report.add_damage(f"{reader.path}, record {key}, byte {reader.offset(key)}: {error}")
            continue
        sizes[f"{image.shape[0]}x{image.shape[1]}"] += 1
        formats[suffix_of(payload)[1:]] += 1
        colours.add(key, image)
    report.decoded, report.sizes, report.formats = number, dict(sizes.most_common()), dict(formats.most_common())
    report.colours = colours.to_dict() if number else {}
    stated = reader.image_size
    if len(sizes) > 1:
        report.add_damage(f"images of different sizes: {report.sizes}; training needs one size")
    elif stated is not None and sizes and f"{stated[0]}x{stated[1]}" not in sizes:
        report.add_damage(f"the property file says {stated[0]}x{stated[1]}, the images are {next(iter(sizes))}")


def report_text(report: Report) -> str:
    """The report for people."""
    empty = f", {report.empty_identities:,} without an image" if report.empty_identities else ""
    lines = [
        f"{report.path}: {report.bytes:,} bytes, layout {report.layout}",
        f"  records     {report.records:,}",
        f"  images      {report.images:,}",
        f"  identities  {report.classes:,}{empty}",
    ]
    if report.images_per_identity:
        figures = ", ".join(f"{name} {value:g}" for name, value in report.images_per_identity.items())
        lines.append(f"  per identity {figures}")
    if report.sizes:
        sizes = ", ".join(f"{size} ({count:,})" for size, count in report.sizes.items())
        lines.append(f"  sizes       {sizes}, from {report.decoded:,} decoded images")
        lines.append("  formats     " + ", ".join(f"{kind} ({count:,})" for kind, count in report.formats.items()))
        lines.append(f"  colours     {WORDS[str(report.colours['verdict'])]}")
        lines.append(
            f"              {report.colours['coloured']} coloured, of them {report.colours['redder_than_blue']} redder "
            f"than blue in the middle; {report.colours['grey']} grey"
        )
    lines += [f"  wrote {path}" for path in report.pictures]
    lines += [f"  note: {note}" for note in report.notes[:_SHOWN]]
    if not report.damage:
        return "\n".join([*lines, "  no damage found"])
    lines.append(f"  DAMAGE in {report.damaged_records:,} places:")
    lines += [f"    {line}" for line in report.damage]
    if report.damaged_records > len(report.damage):
        lines.append(f"    ... and {report.damaged_records - len(report.damage):,} more")
    return "\n".join(lines)
