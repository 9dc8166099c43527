"""Targets of the pair lists of benchmarks and of results of verification; others are in user_targets."""

from __future__ import annotations

from pathlib import Path

from eval.operating_point import points_of_results
from eval.pair_formats.cfp import parse_cfp
from eval.pair_formats.reading import read_pair_list
from eval.pairs import PairError
from eval.thresholds import OperatingPointError
from tests.eval.pair_folders import write_agedb
from tests.fuzz.json_damage import json_damage
from tests.fuzz.mat_damage import mat_damage
from tests.fuzz.target import Target, put

_WORDS = (b"../../../etc/passwd", b"/etc/hostname", b"a/../../x.jpg", b" 0\n", b" 11\n", b"10 300\n", b"-1", b"\x00")
_WORDS += (b"1" * 400, "²".encode(), b",,,", b'"', b"same", b"a" * 300, b"\r", b"\xef\xbb\xbf")


def _list_seeds(_: Path) -> list[bytes]:
    calfw = b"".join(b"P%d_1.jpg %d\nP%d_2.jpg %d\n" % (i, 1 + i // 2, i, 1 + i // 2) for i in range(4))
    calfw += b"".join(b"P%d_1.jpg 0\nP%d_2.jpg 0\n" % (i, (i + 1) % 4) for i in range(4))
    rows = b"a/1.jpg b/2.jpg 1 0\na/1.jpg c/2.jpg 0 1\n"
    agedb = b"a/1.jpg b/2.jpg -1\na/1.jpg a/2.jpg 1\n"
    return [calfw, calfw.replace(b" 2", b" 1"), b"m.1\t1\t2\nm.1\t1\tm.2\t3\n", rows, agedb,
            b"1 1\nAnn 1 2\nAnn 1 Bob 2\n", b"A/A_1.jpg\nA/A_2.jpg\n"]  # fmt: skip


def _read_list(name: str, data: bytes, folder: Path) -> None:
    pairs = read_pair_list(put(folder, name, data))
    assert len(pairs.images) == 2 * len(pairs.is_same) == 2 * len(pairs.folds)
    assert sorted(set(pairs.folds.tolist())) == list(range(pairs.num_folds))
    assert not any(image.file.startswith("/") or ".." in image.file.split("/") for image in pairs.images)


def _csv_seeds(_: Path) -> list[bytes]:
    return [b"first,second,is_same,fold\na/1.jpg,b/1.jpg,0,1\na/1.jpg,a/2.jpg,1,2\n", b'"a, b/1.jpg",c/2.jpg,same\n']


def _agedb_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for as_cells in (True, False):
        write_agedb(folder / "agedb", splits=2, as_cells=as_cells)
        seeds.append((folder / "agedb" / "04_FINAL_protocol_30_years.mat").read_bytes())
    return seeds


def _cfp_seeds(folder: Path) -> list[bytes]:
    protocol = folder / "Protocol"
    for fold in range(1, 11):
        place = protocol / "Split" / "FP" / f"{fold:02d}"
        place.mkdir(parents=True, exist_ok=True)
        put(place, "same.txt", b"1,1\n2,2\n")
        put(place, "diff.txt", b"1,2\n")
    images = b"1 ../Data/Images/001/profile/01.jpg\n2 ../Data/Images/002/profile/01.jpg\n"
    put(protocol, "Pair_list_F.txt", images)
    return [b"P" + images, b"S1,1\n2,2\n"]


def _read_cfp(data: bytes, folder: Path) -> None:
    """The first letter says which file is damaged."""
    protocol = folder / "Protocol"
    images = (protocol / "Pair_list_F.txt").read_bytes()
    put(protocol, "Pair_list_P.txt", data[1:] if data[:1] == b"P" else images)
    put(protocol / "Split" / "FP" / "04", "same.txt", data[1:] if data[:1] == b"S" else b"1,1\n")
    parse_cfp(folder, "FP")


_POINT = b"""{"wanted_far": 0.01, "threshold": 0.25, "far": 0.0093, "far_upper": 0.013, "confidence": 0.95,
 "num_accepted": 28, "num_different": 3000, "tar": 0.93, "num_same": 3000, "source": "lfw"}"""
_RESULTS = b'{"targets": {"lfw": {"protocols": {"insightface": {"num_different": 3000}}, "operating_points": {"0.01": '
_RESULTS += _POINT + b"}}}}"


PAIR_FORMAT_TARGETS = [
    Target("pair_lists", _list_seeds, lambda data, folder: _read_list("list.txt", data, folder), (PairError,),
           _WORDS, is_text=True, memory_factor=512),
    Target("pair_csv", _csv_seeds, lambda data, folder: _read_list("list.csv", data, folder), (PairError,),
           _WORDS, is_text=True, memory_factor=512),
    Target("operating_points", lambda _: [_RESULTS],
           lambda data, folder: points_of_results(put(folder, "results.json", data), [0.01], None),
           (OperatingPointError,), (), (json_damage,), is_text=True, memory_factor=1024),
    Target("agedb", _agedb_seeds, lambda data, folder: _read_list("list.mat", data, folder), (PairError,),
           mutators=(mat_damage,), memory_constant=192 << 20),
    Target("cfp", _cfp_seeds, _read_cfp, (PairError,), _WORDS, is_text=True, memory_factor=512),
]  # fmt: skip
