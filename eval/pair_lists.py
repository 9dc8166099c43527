"""Pair lists as text: which images make which pairs. No image is opened here."""

from __future__ import annotations

from pathlib import Path

from eval.safe_pickle import PairError

Lines = list[tuple[int, list[str]]]
# is_same, then (line in the list, file below the image folder) of both images
Entries = list[tuple[bool, tuple[tuple[int, str], tuple[int, str]]]]


def parse_pair_list(list_path: Path, max_folds: int) -> tuple[Entries, int]:
    """Reads an LFW or an SLLFW list, told apart by the first line; see load_pair_list.

    Args:
        list_path: the list.
        max_folds: of a list that does not say how many.

    Returns:
        The pairs, and the number of folds. Names are relative and lead nowhere but into the folder of images.

    Raises:
        PairError: no text, a line that does not parse, a wrong number of lines, a name that leads out of the folder.
    """
    try:
        text = list_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PairError(f"{list_path}: the pair list cannot be read: {error}") from error
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise PairError(f"{list_path}: the pair list is empty")
    if all(_is_number(word) for word in lines[0][1]):
        entries, num_folds = _parse_lfw(list_path, lines)
    else:
        entries, num_folds = _parse_sllfw(list_path, lines, max_folds)
    for number, file in (image for _, pair in entries for image in pair):
        if file.startswith("/") or "\0" in file or ".." in file.split("/"):
            raise PairError(f"{list_path}: line {number}: {file[:80]!r} leads out of the folder of images")
    return entries, num_folds


def _parse_lfw(path: Path, lines: Lines) -> tuple[Entries, int]:
    header = [int(word) for word in lines[0][1]]
    num_folds, per_kind = (header[0], header[1]) if len(header) == 2 else (1, header[0])
    num_pairs = 2 * num_folds * per_kind
    if len(header) > 2 or num_pairs == 0 or len(lines) - 1 != num_pairs:
        raise PairError(
            f"{path}: line {lines[0][0]}: the header {' '.join(lines[0][1])!r} announces {num_pairs} pairs "
            f"(folds x same and as many different ones), the list holds {len(lines) - 1}"
        )
    entries: Entries = []
    for index, (number, words) in enumerate(lines[1:]):
        same = index % (2 * per_kind) < per_kind
        if len(words) != (3 if same else 4) or not all(_is_number(word) for word in (words[1], words[-1])):
            expected = "`name i j` (same identity)" if same else "`name i other j` (different identities)"
            raise PairError(f"{path}: line {number}: expected {expected}, got {' '.join(words)!r}")
        first = _lfw_file(words[0], words[1])
        entries.append((same, ((number, first), (number, _lfw_file(words[-2] if not same else words[0], words[-1])))))
    return entries, num_folds


def _is_number(word: str) -> bool:
    """Whether int() takes it and it is small; of text, isdigit alone also accepts superscripts."""
    return word.isascii() and word.isdigit() and len(word) <= 9


def _lfw_file(name: str, index: str) -> str:
    return f"{name}/{name}_{int(index):04d}.jpg"


def _parse_sllfw(path: Path, lines: Lines, max_folds: int) -> tuple[Entries, int]:
    for number, words in lines:
        if len(words) != 1 or "/" not in words[0]:
            raise PairError(
                f"{path}: line {number}: expected `Name/Name_0001.jpg` (two lines per pair), or an LFW list with a "
                f"header such as `10 300`; got {' '.join(words)!r}"
            )
    if len(lines) % 2:
        raise PairError(f"{path}: line {lines[-1][0]}: {len(lines)} lines do not make pairs of two lines each")
    entries: Entries = []
    for (number, (first,)), (next_number, (second,)) in zip(lines[::2], lines[1::2], strict=True):
        same = first.rsplit("/", 1)[0] == second.rsplit("/", 1)[0]
        entries.append((same, ((number, first), (next_number, second))))
    return entries, min(max_folds, len(entries))
