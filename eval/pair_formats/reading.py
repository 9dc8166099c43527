"""Which format a list has, told by its first line; the formats themselves are next door."""

from __future__ import annotations

from pathlib import Path

from eval.pair_formats.agedb import parse_agedb
from eval.pair_formats.calfw import parse_calfw
from eval.pair_formats.custom import FLAGS, parse_csv, parse_rows
from eval.pair_formats.lfw import parse_lfw, parse_rfw
from eval.pair_formats.pair_list import PairList, is_number, read_lines
from eval.pair_formats.sllfw import parse_sllfw
from eval.safe_pickle import PairError


def read_pair_list(path: Path) -> PairList:
    """Reads a list by its structure: .csv and .mat (AgeDB) by their suffix, all others by their first line.

    | first line | format |
    |---|---|
    | `10 300`, `500` | LFW |
    | `Name/Name_0001.jpg` | SLLFW, two lines per pair |
    | `Name_0001.jpg 1` | CALFW, CPLFW, two lines per pair |
    | `name 1 2`, `name 1 other 2` | RFW |
    | `a/1.jpg b/2.jpg 0`, with or without a fold | one line per pair |

    Raises:
        PairError: none of these, or a line further down that does not fit; with its number.
    """
    if path.suffix.lower() == ".mat":
        return parse_agedb(path)
    if path.suffix.lower() == ".csv":
        return parse_csv(path)
    lines = read_lines(path)
    number, words = lines[0]
    if all(is_number(word) for word in words):
        return parse_lfw(path, lines)
    if len(words) == 1 and "/" in words[0]:
        return parse_sllfw(path, lines)
    if len(words) == 2 and is_number(words[1]):
        return parse_calfw(path, lines)
    if len(words) in (3, 4) and is_number(words[1]) and is_number(words[-1]):
        return parse_rfw(path, lines)
    if len(words) in (3, 4) and words[2].lower() in FLAGS:
        return parse_rows(path, lines)
    raise PairError(
        f"{path}: line {number}: no known list of pairs begins with {' '.join(words)[:80]!r}; known are `10 300` or "
        "`500` (LFW), `Name/Name_0001.jpg` (SLLFW), `Name_0001.jpg 1` (CALFW, CPLFW), `name 1 2` (RFW), "
        "`image image 0/1 [fold]`, .csv files of the latter, and AgeDB's .mat files"
    )
