"""A run, image folders and saved embeddings for the tests of the gallery commands; no tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from backbones import build_backbone
from eval.embedding_set import EmbeddingSet, save_embedding_set
from tests.eval.faces import face
from utils.images import encode_jpeg


def make_run(folder: Path) -> Path:
    """A run folder with a tiny net of 32 numbers."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"network": "tiny", "embedding_size": 32}))
    torch.manual_seed(0)
    torch.save(build_backbone("tiny", embedding_size=32).state_dict(), folder / "model.pt")
    return folder


def write_faces(folder: Path, files: dict[str, tuple[int, int]], height: int = 112, width: int = 112) -> Path:
    """Writes `file -> (identity, shot)` as JPEGs, cut to that size."""
    for file, (identity, shot) in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(np.ascontiguousarray(face(identity, shot)[:height, :width])))
    return folder


def save_set(path: Path, embeddings: np.ndarray, names: list[str], identities: list[str]) -> Path:
    """Saves embeddings; an identity "" is unknown."""
    known = sorted(set(identities) - {""})
    save_embedding_set(
        path,
        EmbeddingSet(
            np.asarray(embeddings, dtype=np.float32),
            np.array(names, dtype=np.str_),
            np.array([known.index(name) if name else -1 for name in identities], dtype=np.int64),
            np.array(known, dtype=np.str_),
            np.full(len(names), np.nan, dtype=np.float32),
            {"command": "made"},
        ),
    )
    return path
