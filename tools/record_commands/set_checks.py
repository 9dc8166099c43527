"""What `verify` holds against each other: index, keys, set header, identity records, labels, property, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.record_commands.walked_set import Findings, WalkedSet
from utils.record_framing import RecordError
from utils.record_index import choose_keys, read_index
from utils.record_layout import read_property

_EXACT = 1 << 24  # float32 keeps whole numbers up to here
NO_KEY = -1


@dataclass
class Checked:
    """What the checks found out.

    Attributes:
        keys: of each record in file order, int64; NO_KEY where the index names none.
        layout: "insightface" or "im2rec".
        is_image: bool, in file order.
        num_classes: None where nothing says it.
    """

    keys: np.ndarray
    layout: str
    is_image: np.ndarray
    num_classes: int | None


def rebuilt_keys(walked: WalkedSet) -> np.ndarray:
    """The key of each record as the file alone tells it, int64, in file order."""
    return choose_keys(walked.ids if bool((walked.ids >= 0).all()) else None, len(walked))


def check_index(index: Path | None, walked: WalkedSet, findings: Findings) -> np.ndarray:
    """Compares the index with the places where records are; returns each record's key."""
    if index is None:
        return rebuilt_keys(walked)
    try:
        keys, offsets = read_index(index)
    except RecordError as error:
        findings.add("index", None, None, str(error))
        return rebuilt_keys(walked)
    places = np.searchsorted(walked.offsets, offsets)
    places[places == len(walked)] = 0
    is_right = walked.offsets[places] == offsets if len(walked) else np.zeros(len(offsets), dtype=bool)
    damaged_at = {begin for begin, _, _ in walked.damaged}
    for key, offset in zip(keys[~is_right].tolist(), offsets[~is_right].tolist(), strict=True):
        if offset not in damaged_at:  # else the damage itself is told, with this key
            findings.add("index", key, offset, "the index points here, and no record begins here")
    found = np.full(len(walked), NO_KEY, dtype=np.int64)
    found[places[is_right]] = keys[is_right]
    doubled = np.flatnonzero(np.bincount(places[is_right], minlength=len(walked)) > 1)
    for row in doubled.tolist():
        findings.add("index", int(found[row]), int(walked.offsets[row]), "the index has several keys for this record")
    for row in np.flatnonzero(found == NO_KEY).tolist():
        findings.add("index", None, int(walked.offsets[row]), "a record begins here, and the index does not know it")
    has_both = (found != NO_KEY) & (walked.ids >= 0)
    agrees = has_both & (found == walked.ids)
    if agrees.sum() * 8 >= has_both.sum():  # else this set's ids are of another kind
        # in sets joined from several an id is there twice, once in its own place
        differs = has_both & ~agrees & ~np.isin(walked.ids, found[agrees])
        for row in np.flatnonzero(differs).tolist():
            what = f"the record here calls itself {walked.ids[row]}: the index has lines swapped"
            findings.add("index", int(found[row]), int(walked.offsets[row]), what)
    return found


def check_damage(walked: WalkedSet, index: Path | None, findings: Findings) -> None:
    """Tells of each stretch that is no record, with the key that the index has for it."""
    by_offset: dict[int, int] = {}
    if index is not None and walked.damaged:
        try:
            keys, offsets = read_index(index)
        except RecordError:
            pass
        else:
            wanted = np.isin(offsets, [begin for begin, _, _ in walked.damaged])
            by_offset = dict(zip(offsets[wanted].tolist(), keys[wanted].tolist(), strict=True))
    for begin, end, reason in walked.damaged:
        key = by_offset.get(begin)
        findings.unreadable.update(() if key is None else (key,))
        findings.add("framing", key, begin, f"bytes {begin} .. {end} are no sound record: {reason}")


def check_set(rec: Path, walked: WalkedSet, keys: np.ndarray, findings: Findings) -> Checked:
    """Checks layout, identity records, labels, images and sizes."""
    stated = None
    if (rec.parent / "property").is_file():
        try:
            stated = read_property(rec.parent / "property")
        except RecordError as error:
            findings.add("property", None, None, str(error))
    is_span = (walked.flags == 2) & walked.is_empty
    head = np.flatnonzero((keys == 0) & is_span)
    if len(head):
        first, end = float(walked.first_labels[head[0]]), float(walked.second_labels[head[0]])
        num_classes = _check_set_header(walked, keys, int(head[0]), first, end, findings)
        if num_classes is None:  # the header is nonsense (it may be infinite): the records themselves tell
            is_image = (keys >= 1) & ~is_span
        else:
            is_image = (keys >= 1) & (keys < (int(first) if first < _EXACT else int(keys.max()) + 1 - num_classes))
        if num_classes is not None and stated is not None and stated[0] != num_classes:
            what = f"the property file says {stated[0]} classes, the set header {num_classes}"
            findings.add("property", None, None, what)
    else:
        is_image, num_classes = keys != NO_KEY, None
    checked = Checked(keys, "insightface" if len(head) else "im2rec", is_image, num_classes)
    if checked.num_classes is None and stated is not None:
        checked.num_classes = stated[0]
    _check_images(walked, checked, stated[1:] if stated else None, findings)
    if len(head) and num_classes is not None and end <= _EXACT:
        _check_identities(walked, checked, int(first), findings)
    return checked


def _check_set_header(
    walked: WalkedSet, keys: np.ndarray, row: int, first: float, end: float, findings: Findings
) -> int | None:
    """The number of classes that the set header announces, None where it cannot be right."""
    offset = int(walked.offsets[row])
    if not (1 <= first <= end < 2**53 and first == int(first) and end == int(end)):
        findings.add("set header", 0, offset, f"it holds ({first:g}, {end:g}), expected (images + 1, last key + 1)")
        return None
    if end > _EXACT:  # rounded: only the records themselves can tell
        return int(((walked.flags == 2) & walked.is_empty).sum()) - 1
    there = np.zeros(min(int(end), int(keys.max()) + 2, 1 << 26), dtype=bool)
    known = keys[(keys >= 0) & (keys < len(there))]
    there[known] = True
    absent = np.flatnonzero(~there)
    if len(absent) or len(there) < end:
        missing = int(end) - int(there.sum())
        example = int(absent[0]) if len(absent) else len(there)
        what = (
            f"{missing} of the keys 0 .. {int(end) - 1} that the set header announces are missing, {example} the first"
        )
        findings.add("set header", None, offset, what)
    beyond = int((keys >= end).sum())
    if beyond:
        findings.add(
            "set header", None, offset, f"{beyond} records have keys from {int(end)} on, beyond the set header"
        )
    return int(end) - int(first)


def _check_images(walked: WalkedSet, checked: Checked, size: tuple[int, int] | None, findings: Findings) -> None:
    """Headers, labels, decoding and sizes of the images."""

    def told(mask: np.ndarray) -> list[tuple[int, int, int | None]]:
        rows = np.flatnonzero(mask & checked.is_image).tolist()
        return [(row, int(walked.offsets[row]), int(checked.keys[row])) for row in rows]

    for _, offset, key in told(walked.flags < 0):
        findings.add("header", key, offset, "the record is too short for its header and the labels it announces")
    labels = walked.first_labels
    is_label = (labels >= 0) & (labels < _EXACT) & (labels == np.floor(labels))  # false for NaN
    if checked.num_classes is not None:
        is_label &= labels < checked.num_classes
    allowed = f"0 .. {checked.num_classes - 1}" if checked.num_classes is not None else "whole numbers from 0 on"
    for row, offset, key in told(~is_label & (walked.flags >= 0)):
        findings.add("label", key, offset, f"label {labels[row]:g}; allowed are {allowed}")
    for _, offset, key in told((walked.flags == 2) & walked.is_empty):
        findings.add("image", key, offset, "an image is expected here, the record has none")
    has_failed = np.zeros(len(walked), dtype=bool)
    has_failed[list(walked.failures)] = True
    for row, offset, key in told(has_failed):
        findings.add("image", key, offset, walked.failures[row])
    decoded = (walked.heights > 0) & checked.is_image
    if not decoded.any():
        return
    shapes, numbers = np.unique(np.stack([walked.heights[decoded], walked.widths[decoded]]), axis=1, return_counts=True)
    height, width = size or tuple(shapes[:, numbers.argmax()].tolist())
    where = "the property file says" if size else "most images have"
    for row, offset, key in told(decoded & ((walked.heights != height) | (walked.widths != width))):
        found = f"{walked.heights[row]}x{walked.widths[row]}"
        findings.add("size", key, offset, f"the image is {found}, {where} {height}x{width}")


def _check_identities(walked: WalkedSet, checked: Checked, first: int, findings: Findings) -> None:
    """Identity records hold the span of keys whose images bear the identity's label."""
    images = np.flatnonzero(checked.is_image)
    label_of = np.full(first, -1, dtype=np.int64)
    labels = walked.first_labels[images]
    label_of[checked.keys[images]] = np.where((labels >= 0) & (labels < _EXACT), labels, -1).astype(np.int64)
    rows = np.flatnonzero(checked.keys >= first)
    wrong, uncovered = 0, len(images)
    for row in rows[np.argsort(checked.keys[rows])].tolist():
        key, offset = int(checked.keys[row]), int(walked.offsets[row])
        start, end = float(walked.first_labels[row]), float(walked.second_labels[row])
        is_span = walked.flags[row] == 2 and 1 <= start <= end <= first and start == int(start) and end == int(end)
        uncovered -= int(end) - int(start) if is_span else 0
        if not is_span:
            what = "an identity record is expected here: two labels, the span of its images' keys, and no image"
        elif uncovered < 0 or bool((label_of[int(start) : int(end)] != key - first).any()):
            what = f"identity {key - first}: not all records {start:g} .. {end - 1:g} bear its label"
        else:
            continue
        findings.add("identity", key, offset, what, unfit=False)
        wrong += 1
        if uncovered < 0:  # spans overlap: to go on could take the square of the set's size
            break
    if not wrong and uncovered:
        what = f"{uncovered} images are in no identity record's span"
        findings.add("identity", None, None, what, unfit=False)
