"""Ways to damage a valid file: bits, lengths, parts, numbers, nesting. Knows no format and no parser."""

from __future__ import annotations

import importlib
import os
import pickle
import pickletools
import re
import subprocess
import zlib
from collections.abc import Sequence
from random import Random

INTERESTING = (0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 60000)
INTERESTING += (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
NUMBERS = (b"0", b"-1", b"1", b"2147483648", b"9" * 18, b"9" * 19, b"9" * 30, b"9" * 5000, b"1e999", b"-1e999", b"NaN")
NUMBERS += (b"0.5", b"1_0", b"+1", b"0x10", "²".encode(), "٣".encode(), b" 1", b"1.0", b"Infinity", b"null", b"true")
WORDS = (
    b"../../x",
    b"/etc/passwd",
    b"\0",
    b"..",
    b"",
    b" ",
    b"\r",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\ud800",
    b'"',
    b"'",
)
WORDS += (b"[" * 3000, b"(" * 3000, b"{" * 500, b'{"a":' * 2000, b"-" * 3000, b"]" * 9, b"a" * 5000, b",", b"\t", b"=")
WORDS += ("\u2028".encode(), "\x85".encode(), b"\x1c", "\ufeff".encode())


def damaged(data: bytes, random: Random, others: Sequence[bytes], tokens: Sequence[bytes], *, is_text: bool) -> bytes:
    """`data` after one to four random changes."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        ways = _TEXT_WAYS if is_text and random.random() < 0.7 else _BYTE_WAYS
        data = random.choice(ways)(data, random, others, tokens)
    return data[: 1 << 20]


def _flip(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        if out:
            out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def _byte(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    if out:
        out[random.randrange(len(out))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(out)


def _number(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    """Writes a length that surprises, at any place, in any width and byte order."""
    width, order = random.choice((1, 2, 4, 4, 8)), random.choice(("little", "big"))
    value = (random.choice(INTERESTING) + random.choice((-1, 0, 0, 1))) % (1 << 8 * width)
    place = random.randrange(max(1, len(data) - width + 1))
    place -= place % width if random.random() < 0.5 else 0
    return data[:place] + value.to_bytes(width, order) + data[place + width :]  # type: ignore[arg-type]


def _cut(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _span(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 8, 16, 64, 256, len(data)))
    return start, min(len(data), start + random.randrange(length + 1))


def _remove(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    start, end = _span(data, random)
    times = min(random.choice((2, 3, 10, 200)), 1 + (1 << 16) // (end - start + 1))
    return data[:start] + data[start:end] * times + data[end:]


def _swap(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(4))
    a, b, c, d = cuts
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _insert(data: bytes, random: Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + (random.choice(tokens) if tokens else random.randbytes(4)) + data[place:]


def _splice(data: bytes, random: Random, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _line(data: bytes, random: Random, *_: Sequence[bytes]) -> bytes:
    """Repeats, removes, swaps or joins lines."""
    lines = data.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    way = random.randrange(4)
    if way == 0:
        lines.insert(second, lines[first])
    elif way == 1:
        del lines[first]
    elif way == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[first] += random.choice((b"\r", b"\t", b" ", b"")) + lines[second]
    return b"\n".join(lines)


def _word(data: bytes, random: Random, _: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Puts a word that surprises in the place of a run of letters or digits."""
    near = random.randrange(len(data) + 1)
    found = _WORD.search(data, near) or _WORD.search(data)
    start, end = found.span() if found else (near, near)
    return data[:start] + random.choice((*NUMBERS, *WORDS, *tokens)) + data[end:]


_BYTE_WAYS = (_flip, _flip, _byte, _number, _number, _number, _cut, _remove, _repeat, _swap, _insert, _splice)
_TEXT_WAYS = (_line, _word, _word, _word, _insert, _splice)


_WORD = re.compile(rb"[0-9A-Za-z]+")


class Attack:
    """Pickles as a call of `function`: what a hostile file would have run."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


def opcodes_of(content: bytes) -> list[bytes]:
    """A valid pickle cut into its opcodes."""
    places = [place for _, _, place in pickletools.genops(content)]
    return [content[a:b] for a, b in zip(places, [*places[1:], len(content)], strict=True)]


def pickle_damage(content: bytes, random: Random) -> bytes:
    """A pickle after changes opcode by opcode, so that it stays a pickle; some of them would run code."""
    try:
        parts = opcodes_of(content)
    except Exception:
        return content
    for _ in range(random.choice((1, 1, 2, 3))):
        place, other, way = random.randrange(len(parts)), random.randrange(len(parts)), random.randrange(6)
        if way == 0:
            del parts[place]
        elif way == 1:
            parts.insert(place, parts[other])
        elif way == 2:
            parts[place], parts[other] = parts[other], parts[place]
        elif way == 3:
            parts[place] = random.choice(_PICKLE_PARTS)
        elif way == 4:
            parts.insert(place, random.choice(_PICKLE_PARTS) * random.choice((1, 1, 2, 2000)))
        else:
            parts.insert(place, random.choice(ATTACKS))
        parts = parts or [b"."]
    return b"".join(parts)


# Expressions that leave one value on the stack of whatever runs them.
_CALLS = (
    Attack(os.system, "touch CANARY"),
    Attack(eval, "open('CANARY', 'w')"),
    Attack(open, "CANARY", "w"),
    Attack(subprocess.Popen, "touch CANARY"),
    Attack(importlib.import_module, "antigravity"),
    Attack(bytearray, 1 << 40),
    Attack(range, 1 << 60),
    Attack(getattr, "", "x"),
)
ATTACKS = (
    *(pickle.dumps(attack, protocol)[2 if protocol < 4 else 11 : -1] for protocol in (2, 4) for attack in _CALLS),
    b"cos\nsystem\n(X\x0c\x00\x00\x00touch CANARYtR",
    b"(X\x0c\x00\x00\x00touch CANARYios\nsystem\n",
)
_PICKLE_PARTS = (
    b"(", b")", b"]", b"}", b"0", b"1", b"2", b"t", b"\x85", b"\x86", b"\x87", b"s", b"u", b"a", b"e", b"b", b"R",
    b"\x81", b"\x94", b"h\x00", b"h\x01", b"h\x02", b"h\x03", b"q\xff", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff",
    b"N", b"\x88", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff",
    b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\x00", b"\x8a\xff" + b"\x11" * 255, b"\x8e" + b"\xff" * 7 + b"\x7f",
    b"B\xff\xff\xff\x7f", b"\x96" + b"\xff" * 7 + b"\x00", b"X\x01\x00\x00\x00x", b"C\x01x",
    b"G" + b"\x7f\xf0" + bytes(6), b"\x95" + b"\xff" * 8, b"\x93", b".", b"Q", b"\x8f", b"\x97", b"\x98",
    b"\x82\x01", b"\x92", b"l", b"d", b"o", b"cnumpy\nndarray\n", b"ccollections\nOrderedDict\n",
)  # fmt: skip


def zlib_bomb(unpacked: int) -> bytes:
    """A zlib stream of zeros that unpacks to `unpacked` bytes."""
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    body = b"".join(packer.compress(zeros[: min(len(zeros), unpacked - done)]) for done in range(0, unpacked, 1 << 20))
    return body + packer.flush()
