"""Targets that read what users write and download beside training data: pair sets and configs. No loop here."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eval.pairs import PairError, load_bin, load_pair_list
from tests.fuzz.damage import pickle_damage
from tests.fuzz.json_damage import json_damage
from tests.fuzz.target import Target, put
from tests.records import picture
from utils.config import ConfigError, _add_overrides, _Merged, load_config
from utils.config_keys import check_values
from utils.config_text import read_text_config
from utils.images import encode_jpeg

_JPEG = encode_jpeg(picture(3, 8, 8))


def _bin_seeds(_: Path) -> list[bytes]:
    arrays = [np.frombuffer(_JPEG, np.uint8), np.frombuffer(_JPEG, np.uint8).reshape(-1, 1)]
    sets: list[Any] = [([_JPEG, b"x"], [True]), (arrays, np.array([False])), ([_JPEG] * 4, (True, False))]
    return [pickle.dumps(pairs, protocol) for pairs in sets for protocol in (2, 3, 4, 5)]


def _read_bin(data: bytes, folder: Path) -> None:
    pairs = load_bin(put(folder, "set.bin", data))
    try:
        pairs.images[0]
    except PairError:
        assert len(pairs.images) == 2 * len(pairs.is_same)


def _pair_seeds(folder: Path) -> list[bytes]:
    for name in ("Ann", "Bob"):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            put(folder / "images" / name, f"{name}_000{number}.jpg", _JPEG)
    sllfw = b"Ann/Ann_0001.jpg\nAnn/Ann_0002.jpg\nBob/Bob_0001.jpg\nAnn/Ann_0001.jpg\n"
    return [b"1\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\n", b"1\nBob 1 2\nAnn 2 Bob 1\n", sllfw]


_PAIR_WORDS = (
    b"../../../etc/passwd/x",
    b"/etc/hostname",
    b"..",
    b"Ann/../../x.jpg",
    b"10 300",
    b"1 1",
    b"Ann 1 2\n",
    b"a" * 300,
)


def _read_overrides(data: bytes, _: Path) -> None:
    """Parsing and checking of every input; one in twenty as a whole config, which reads base.py each time."""
    overrides = [part.decode("utf-8", "replace") for part in data.split(b"\n")][:20]
    merged = _Merged()
    _add_overrides(merged, overrides)
    problems = merged.problems + check_values(merged.values, merged.origins)[1]
    if len(data) % 20 == 0:
        load_config("quickstart", overrides)
    if problems:
        raise ConfigError(problems)


def _config_text(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> None:
        path = put(folder, name, data)
        read_text_config(path, name)
        if len(data) % 10 == 0:
            load_config(path)

    return read


_YAML = b"""head: cosface
head_options: {margin: 0.4, scale: 64}
lr: 1.0e-1
batch_size: 64
regularizers:
  sample_margin: 0.5
rec: &there synthetic
output: *there
fp16: false
"""
_JSON = (
    b'{"head": "cosface", "head_options": {"margin": 0.4}, "lr": 1e-1, "batch_size": 64, '
    b'"rec": "synthetic", "fp16": false, "output": null}'
)
_YAML_WORDS = (b"&a ", b"*a", b"!!python/object/apply:os.system ['touch CANARY']", b"!!binary aGk=", b"? ", b"1:2:3")
_YAML_WORDS += (b"!!timestamp 2001-1-1", b"<<: *there", b"- ", b"---\n", b"%YAML 9.9\n", b"!!set {a}", b"2001-99-99")
_YAML_WORDS += (b"[*there, *there]", b"|\n  x", b"=")
_OVERRIDES = b"lr=0.1\nhead_options.margin=0.3\nval_targets=('lfw','agedb')\nresume=true\nhead='arcface'\noutput=1e3"


USER_TARGETS = [
    Target("bin", _bin_seeds, _read_bin, (PairError,), mutators=(pickle_damage,)),
    Target("pairs", _pair_seeds,
           lambda data, folder: load_pair_list(folder / "images", put(folder, "pairs.txt", data)), (PairError,),
           _PAIR_WORDS, is_text=True, memory_factor=512),
    Target("overrides", lambda _: [_OVERRIDES], _read_overrides, (ConfigError,), is_text=True),
    Target("config_yaml", lambda _: [_YAML], _config_text("my_run.yaml"), (ConfigError,), _YAML_WORDS, is_text=True,
           memory_factor=1024),
    Target("config_json", lambda _: [_JSON], _config_text("my_run.json"), (ConfigError,), (), (json_damage,),
           is_text=True, memory_factor=1024),
]  # fmt: skip
