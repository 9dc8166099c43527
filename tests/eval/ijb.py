"""A made-up IJB set: lists in the official layout over faces of tests.eval.faces; no tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.eval.faces import face
from utils.images import encode_jpeg

# template -> (subject, media of its images)
TEMPLATES = {
    10: (1, [100]),
    20: (2, [101, 101, 102]),
    30: (3, [103]),
    40: (4, [104]),
    50: (5, [105, 105]),
    **{60 + n: (1 + n % 5, [200 + n] if n % 2 else [200 + n, 200 + n, 300 + n]) for n in range(10)},
}
GALLERIES = ([10, 20, 30], [40, 50])
PROBES = [60 + n for n in range(10)]
_POINTS = "46.0 62.0 88.0 60.0 68.0 78.0 52.0 100.0 86.0 98.0"


@dataclass(frozen=True)
class MadeIjb:
    """What the lists say: see eval.ijb_metadata.IjbImages and IjbPairs."""

    names: list[str]
    templates: np.ndarray
    media: np.ndarray
    scores: np.ndarray
    subjects: np.ndarray  # of each image
    first: np.ndarray
    second: np.ndarray
    is_same: np.ndarray


def write_ijb(folder: Path, *, name: str = "ijbc", letter: str = "G", images: bool = False) -> MadeIjb:
    """Writes meta/ (and aligned/ with .png images) below the folder."""
    rows = [(template, subject, medium) for template, (subject, media) in TEMPLATES.items() for medium in media]
    names = [f"{number}.jpg" for number in range(1, len(rows) + 1)]
    scores = np.round(0.5 + 0.5 * np.random.default_rng(0).random(len(rows)), 3)
    first = np.repeat([t for gallery in GALLERIES for t in gallery], len(PROBES))
    second = np.tile(PROBES, 5)
    is_same = np.array([TEMPLATES[a][0] == TEMPLATES[b][0] for a, b in zip(first, second, strict=True)])
    meta = folder / "meta"
    meta.mkdir(parents=True)

    def write(suffix: str, lines: list[str]) -> None:
        (meta / f"{name}_{suffix}").write_text("".join(f"{line}\n" for line in lines))

    write("face_tid_mid.txt", [f"{n} {t} {m}" for n, (t, _, m) in zip(names, rows, strict=True)])
    write("name_5pts_score.txt", [f"{n} {_POINTS} {s:.3f}" for n, s in zip(names, scores, strict=True)])
    write("template_pair_label.txt", [f"{a} {b} {int(s)}" for a, b, s in zip(first, second, is_same, strict=True)])
    parts = [(f"1N_gallery_{letter}{n + 1}.csv", gallery) for n, gallery in enumerate(GALLERIES)]
    for suffix, templates in [*parts, ("1N_probe_mixed.csv", PROBES)]:
        listed = [f"{t},{s},img/{n}" for n, (t, s, _) in zip(names, rows, strict=True) if t in templates]
        write(suffix, ["TEMPLATE_ID,SUBJECT_ID,FILENAME", *listed])
    if images:
        (folder / "aligned").mkdir()
        for number, (_, subject, _) in enumerate(rows, start=1):
            (folder / "aligned" / f"{number}.jpeg").write_bytes(encode_jpeg(face(subject, number)))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return MadeIjb(names, columns[0], columns[2], scores, columns[1], first, second, is_same)
