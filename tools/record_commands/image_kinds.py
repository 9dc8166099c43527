"""What kind of file the bytes of an image are. Nothing is decoded here."""

from __future__ import annotations

_KINDS = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"RIFF", ".webp"))


def suffix_of(data: bytes | memoryview) -> str:
    """The suffix of a file that holds these bytes; .bin where they begin no known kind of image."""
    start = bytes(data[:4])
    return next((suffix for begin, suffix in _KINDS if start.startswith(begin)), ".bin")
