"""`verify`: every record read and decoded, index and descriptions held against the file, a lost index rebuilt."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from sources.base import SourceError
from tools.record_commands.options import add_command, count, rec_file
from tools.record_commands.set_checks import check_damage, check_index, check_set, rebuilt_keys
from tools.record_commands.walked_set import Findings, WalkedSet, walk_set
from utils.command_line import DONE, FOUND, Outcome
from utils.files import whole_file, write_text_whole
from utils.record_index import write_index

_SHOWN = 20  # findings in words
EXAMPLES = (
    "python -m tools.records verify data/mine",
    "python -m tools.records verify data/mine --json > report.json",
    "python -m tools.records verify data/mine --repair-index",
    "python -m tools.records verify data/mine --bad-keys damaged.txt",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(
        commands, "verify", "every record read, decoded and held against index and labels", EXAMPLES, run
    )
    parser.add_argument("set", type=Path, help="folder with train.rec, or a .rec file")
    parser.add_argument("--repair-index", action="store_true", help="write the .idx anew where it is lost or wrong")
    parser.add_argument("--no-decode", action="store_true", help="read headers and labels only")
    parser.add_argument("--bad-keys", type=Path, metavar="FILE", help="write the keys of damaged images, one a line")
    parser.add_argument("--threads", type=count, default=2, help="decoding threads (default 2)")


def run(options: argparse.Namespace) -> Outcome:
    """Verifies a set."""
    rec = rec_file(options.set)
    index = rec.with_suffix(".idx")
    if options.bad_keys is not None and not options.bad_keys.absolute().parent.is_dir():
        raise SourceError(f"{options.bad_keys.absolute().parent}: no such folder; make it first")
    walked = walk_set(rec, decode=not options.no_decode, threads=options.threads)
    findings, notes = Findings(), list[str]()
    there = index if index.is_file() else None
    repaired = _repair(index, walked, notes) if options.repair_index else None
    if repaired is None and there is None:
        notes.append(f"no {index.name}: keys are told from the file; --repair-index writes it")
    if not len(walked):
        findings.add("framing", None, 0, "there is no sound record in the file")
    check_damage(walked, there, findings)
    checked = check_set(rec, walked, check_index(repaired or there, walked, findings), findings)
    if checked.layout == "insightface" and not (rec.parent / "property").is_file():
        notes.append("no property file: classes come from the set header, the size from the first image")
    if options.bad_keys is not None:
        images = set(checked.keys[checked.is_image].tolist())
        lines = [f"{key}\n" for key in sorted(findings.keys) if key in images or key in findings.unreadable]
        write_text_whole("".join(lines), options.bad_keys)
    total = sum(findings.counts.values())
    facts = {
        "rec": rec, "bytes": walked.size, "layout": checked.layout, "records": len(walked),
        "images": int(checked.is_image.sum()), "decoded": int((walked.heights > 0).sum()),
        "classes": checked.num_classes, "index": "absent" if there is None else "there", "repaired_index": repaired,
        "num_findings": total, "findings_by_kind": findings.counts, "findings": findings.listed, "notes": notes,
    }  # fmt: skip
    return Outcome(_words(facts, findings, notes), facts, FOUND if total else DONE)


def _repair(index: Path, walked: WalkedSet, notes: list[str]) -> Path | None:
    """Writes the index that the file itself tells, where there is none or another; the old one is kept.

    Raises:
        SourceError: the file is damaged, so that its records cannot tell all their keys.
    """
    if walked.damaged or not len(walked):
        begin, end, reason = walked.damaged[0] if walked.damaged else (0, walked.size, "no record")
        raise SourceError(
            f"{index}: not written, since bytes {begin} .. {end} of the .rec are no sound record ({reason}): get the "
            "file anew, or leave the damaged records out (`verify --bad-keys FILE`, then `subset --without FILE`)"
        )
    keys = rebuilt_keys(walked)
    order = np.argsort(keys, kind="stable")
    if index.is_file():
        findings = Findings()
        check_index(index, walked, findings)
        if not findings.counts:
            notes.append(f"{index.name} is right and stays as it is")
            return None
        old = index.with_name(index.name + ".before_repair")
        os.replace(index, old)
        notes.append(f"{index.name} had {sum(findings.counts.values())} faults; it is now {old.name}")
    with whole_file(index) as stream:
        write_index(stream, keys[order], walked.offsets[order])
    notes.append(f"{index.name} was written anew from the {len(walked)} records of the file")
    return index


def _words(facts: dict[str, Any], findings: Findings, notes: list[str]) -> str:
    classes = "" if facts["classes"] is None else f" of {facts['classes']:,} identities"
    lines = [
        f"{facts['rec']}: {facts['bytes']:,} bytes, layout {facts['layout']}",
        f"  {facts['records']:,} records, {facts['images']:,} images{classes}, {facts['decoded']:,} decoded",
        *(f"  note: {note}" for note in notes),
    ]
    if not findings.counts:
        return "\n".join([*lines, "  nothing wrong"])
    kinds = ", ".join(f"{number} of {kind}" for kind, number in findings.counts.items())
    lines.append(f"  WRONG in {facts['num_findings']:,} places: {kinds}")
    for item in findings.listed[:_SHOWN]:
        key = "" if item["key"] is None else f"record {item['key']}, "
        byte = "" if item["byte"] is None else f"byte {item['byte']}: "
        lines.append(f"    {key}{byte}{item['what']}")
    if facts["num_findings"] > _SHOWN:
        lines.append(
            f"    ... and {facts['num_findings'] - _SHOWN:,} more; --json lists {len(findings.listed):,} of them"
        )
    return "\n".join(lines)
