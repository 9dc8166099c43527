"""Targets that read what verification leaves for reports: scores and hardest pairs. No loop here."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from random import Random

import numpy as np

from eval.saved_scores import SavedScoresError, read_hardest, read_scores, write_scores
from tests.eval.faces import memory_pairs
from tests.eval.runs import noisy_result
from tests.fuzz.damage import damaged
from tests.fuzz.json_damage import json_damage
from tests.fuzz.target import Target, put


def _score_seeds(folder: Path) -> list[bytes]:
    pairs = memory_pairs(12)
    write_scores(folder, "set", pairs, noisy_result(pairs, 2.0), num_hardest=1)
    return [(folder / "set_scores.npz").read_bytes()]


def _hardest_seeds(folder: Path) -> list[bytes]:
    _score_seeds(folder)
    return [(folder / "set_hardest.json").read_bytes()]


def _read_scores(data: bytes, folder: Path) -> None:
    put(folder, "set_scores.npz", data)
    scores, is_same = read_scores(folder, "set")
    assert len(scores) == len(is_same)
    assert np.isfinite(scores).all()


def _read_hardest(data: bytes, folder: Path) -> None:
    put(folder, "set_hardest.json", data)
    hardest = read_hardest(folder, "set", *read_scores(folder, "set"))
    assert hardest is not None
    assert len(hardest.pairs) <= 200


def _rezip(data: bytes, random: Random) -> bytes:
    """Damage to one member of the archive, with a checksum that is right; its header above all."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
            chosen = random.choice(source.namelist())
            for name in source.namelist():
                content = source.read(name)
                if name == chosen:
                    head = 128 if random.random() < 0.8 else len(content)
                    content = damaged(content[:head], random, [content], [], is_text=False) + content[head:]
                packing = random.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
                target.writestr(zipfile.ZipInfo(name), content, packing)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):
        return data
    return out.getvalue()


_HEADERS = (b"'<f8'", b"'|b1'", b"'|O'", b"'>f8'", b"(12,)", b"(1000000000000,)", b"(12, 1)", b"()", b"(-1,)", b"True")

REPORT_TARGETS = [
    Target("scores", _score_seeds, _read_scores, (SavedScoresError,), _HEADERS, (_rezip,)),
    Target("hardest", _hardest_seeds, _read_hardest, (SavedScoresError,), (), (json_damage,), is_text=True),
]
