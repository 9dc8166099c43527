"""Damage of MATLAB files that compression would hide. No targets."""

from __future__ import annotations

import struct
import zlib
from random import Random

from tests.fuzz.damage import damaged, zlib_bomb


def mat_damage(data: bytes, random: Random) -> bytes:
    """Damage under the compression of one variable; now and then a bomb."""
    if len(data) < 136 or data[128] != 15:
        return data
    (length,) = struct.unpack_from("<I", data, 132)
    try:
        inside = zlib.decompress(data[136 : 136 + length])
    except zlib.error:
        return data
    if random.random() < 0.002:
        packed = zlib.compress(struct.pack("<II", 14, 200 << 20), 1) + zlib_bomb(1 << 22)
    else:
        packed = zlib.compress(damaged(inside, random, [inside], [], is_text=False), 1)
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed + data[136 + length :]
