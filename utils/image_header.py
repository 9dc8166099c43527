"""Height and width of an encoded image from its first bytes, before anything is decoded. No pixels here."""

from __future__ import annotations

import struct

_JPEG, _PNG, _BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"
_TWO_SHORTS, _SHORT = struct.Struct(">HH"), struct.Struct(">H")
_TWO_INTS, _INT = struct.Struct(">II"), struct.Struct(">I")
_MAX_SEGMENTS = 1000  # of a JPEG before its frame; a colour profile may take 255
# Markers of a frame: all of c0 .. cf but tables (c4, cc) and the reserved c8.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset([0x01, *range(0xD0, 0xD8)])  # markers without a length


def image_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(height, width) as a JPEG, PNG, BMP or WebP states them; None where the bytes begin none of these soundly.

    OpenCV allocates what the header says, so this is what stands between 200 bytes and gigabytes. It costs about a
    hundredth of decoding a face.
    """
    try:
        if data[:2] == _JPEG:
            return _jpeg_size(data)
        if data[:8] == _PNG:
            return _png_size(data)
        if data[:2] == _BMP:
            return _bmp_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(bytes(data[12:30]))
    except (IndexError, struct.error):
        pass
    return None


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    place = 2
    for _ in range(_MAX_SEGMENTS):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0x00, 0xFF):  # filling, or bytes that belong nowhere
            place = bytes(data).find(b"\xff", place + 1)
            if place < 0:
                return None
        elif marker in _FRAMES:
            height, width = _TWO_SHORTS.unpack_from(data, place + 5)
            return height, width
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + _SHORT.unpack_from(data, place + 2)[0]
    return None


def _png_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """None also where a part reaches beyond the file or the end is missing: OpenCV takes memory for parts unseen."""
    place, kind = 8, data[12:16]
    width, height = _TWO_INTS.unpack_from(data, 16)
    if kind != b"IHDR":
        return None
    while kind != b"IEND":
        (length,) = _INT.unpack_from(data, place)
        kind = data[place + 4 : place + 8]
        place += 12 + length
    return (height, width) if place <= len(data) else None


def _bmp_size(data: bytes | memoryview) -> tuple[int, int] | None:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return (abs(height), width) if width > 0 else None


def _webp_size(start: bytes) -> tuple[int, int] | None:
    """`start` is the file from byte 12 on: the first chunk's name, its length, its contents."""
    kind = start[:4]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", start, 14)
        return (height & 0x3FFF, width & 0x3FFF) if start[11:14] == b"\x9d\x01\x2a" else None
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", start, 9)
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X" and len(start) == 18:
        return 1 + int.from_bytes(start[15:18], "little"), 1 + int.from_bytes(start[12:15], "little")
    return None
