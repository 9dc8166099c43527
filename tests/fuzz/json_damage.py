"""Ways to damage a JSON document so that it stays one. Knows no format and no parser."""

from __future__ import annotations

import json
from random import Random
from typing import Any

_NASTY: tuple[Any, ...] = (None, True, -1, 0.5, 1e308, 1 << 70, "", "../../x", "/etc/passwd", "\0", "\ud800", [], {})
_NASTY += ([[]], {"a": {}}, float("nan"), float("inf"))


def json_damage(data: bytes, random: Random) -> bytes:
    """Another value somewhere in a JSON document."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    spots: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        node = pending.pop()
        listed = enumerate(node) if isinstance(node, list) else ()
        entries = list(node.items() if isinstance(node, dict) else listed)
        spots += [(node, key) for key, _ in entries]
        pending += [value for _, value in entries]
    if not spots:
        return json.dumps(random.choice(_NASTY)).encode()
    node, key = random.choice(spots)
    if isinstance(node, dict) and random.random() < 0.3:
        node[str(random.choice(_NASTY))] = node.pop(key)
    else:
        node[key] = random.choice(_NASTY)
    return json.dumps(document).encode()


def lines_damage(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    lines[place] = json_damage(lines[place], random)
    return b"\n".join(lines)
