"""Our record files against MXNet itself, in a Python of its own that `make test-mxnet` makes: both ways, every byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.records import make_image_folder
from tests.tools.record_commands.runs import run
from utils.images import decode_image
from utils.record_framing import MAGIC_BYTES
from utils.recordio import RecordHeader, RecordReader, RecordWriter, pack_record

ROOT = Path(__file__).resolve().parents[2]
# made absolute, not resolved: a venv's python is a link out of it
PYTHON = os.path.abspath(os.environ.get("MXNET_PYTHON", ROOT / ".venv-mxnet" / "bin" / "python"))
NUMBER = 4000
pytestmark = pytest.mark.skipif(
    not Path(PYTHON).exists() and "MXNET_PYTHON" not in os.environ,
    reason="MXNet is in no virtual environment of its own here: `make test-mxnet` makes one",
)


def peer(*arguments: object) -> Any:
    command = [PYTHON, str(ROOT / "tests" / "mxnet_peer" / "peer.py"), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def payload(rng: np.random.Generator) -> bytes:
    """Random bytes, often with the magic in them, at aligned places and at others; now and then empty or large."""
    kind = int(rng.integers(0, 8))
    if kind == 0:
        return b""
    length = int(rng.integers(0, 200)) if rng.random() < 0.98 else int(rng.integers(1 << 16, 1 << 20))
    data = bytearray(rng.bytes(length))
    for _ in range(kind if kind < 5 else 0):
        place = int(rng.integers(0, length + 1))
        place = place // 4 * 4 if rng.random() < 0.7 else place
        data[place : place + 4] = MAGIC_BYTES
    return bytes(data)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Any], dict[int, bytes]]:
    """Payloads and labels on the disk, for both sides."""
    folder = tmp_path_factory.mktemp("mxnet")
    (folder / "given").mkdir()
    rng = np.random.default_rng(2048)
    labels: dict[int, Any] = {}
    payloads: dict[int, bytes] = {}
    for key in range(NUMBER):
        vector = [float(value) for value in rng.integers(0, 1000, int(rng.integers(1, 12)))]
        labels[key] = vector if key % 3 == 0 else float(rng.integers(0, 100_000))
        payloads[key] = payload(rng)
        (folder / "given" / f"{key}.payload").write_bytes(payloads[key])
    (folder / "given" / "labels.json").write_text(json.dumps(labels))
    with RecordWriter(folder / "ours.rec", folder / "ours.idx") as writer:
        for key, label in labels.items():
            own = np.array(label, dtype=np.float32) if isinstance(label, list) else label
            writer.write(key, pack_record(RecordHeader(0, own, key, key * 7 % 1000), payloads[key]))
    return folder, labels, payloads


def test_it_is_the_mxnet_that_is_meant() -> None:
    assert peer("version") == {"mxnet": "1.9.1", "numpy": "1.23.5"}


def test_mxnet_reads_what_we_write(given: tuple) -> None:
    folder, labels, payloads = given
    found = peer("read", folder)
    expected = {
        str(key): [labels[key], key, key * 7 % 1000, hashlib.sha256(payloads[key]).hexdigest()] for key in labels
    }
    assert found["by_key"] == expected
    assert found["in_order"] == [item[1:] for item in expected.values()]


def test_we_read_what_mxnet_writes_and_it_is_what_we_write(given: tuple) -> None:
    folder, labels, payloads = given
    assert peer("write", folder) == {"records": NUMBER}
    assert (folder / "mxnet.rec").read_bytes() == (folder / "ours.rec").read_bytes()
    assert (folder / "mxnet.idx").read_bytes() == (folder / "ours.idx").read_bytes()
    for index in (folder / "mxnet.idx", None):
        if index is None:
            (folder / "mxnet.idx").unlink()  # the offsets are found again
        with RecordReader(folder / "mxnet.rec", index) as reader:
            assert len(reader) == NUMBER
            for key, label in labels.items():
                header, found = reader.sample(key)
                assert bytes(found) == payloads[key]
                assert np.array_equal(header.label, np.array(label, np.float32) if isinstance(label, list) else label)
                assert (header.id, header.id2) == (key, key * 7 % 1000)


def test_mxnet_goes_through_a_plain_shuffled_set(tmp_path: Path) -> None:
    images = make_image_folder(tmp_path / "images", [5, 9, 7], 112, 112)
    assert run("pack", images, tmp_path / "set") == 0
    assert run("shuffle", tmp_path / "set", tmp_path / "plain", "--layout", "plain") == 0
    found = peer("iterate", tmp_path / "plain", 3)
    with RecordReader(tmp_path / "plain" / "train.rec") as reader:
        assert found["labels"][:21] == [float(reader.label(key)) for key in range(21)]
        for key, means in enumerate(found["means"][:21]):  # RGB order, up to the difference of two JPEG decoders
            ours = decode_image(reader.sample(key)[1]).mean(axis=(0, 1))
            assert np.abs(ours - means).max() < 1.5


@pytest.mark.parametrize("command", ["shuffle", "merge", "subset"])
def test_mxnet_reads_what_the_commands_write(command: str, tmp_path: Path) -> None:
    images = make_image_folder(tmp_path / "images", [3, 4])
    assert run("pack", images, tmp_path / "set") == 0
    assert run("pack", images, tmp_path / "other") == 0
    sets = [tmp_path / "set", tmp_path / "other"] if command == "merge" else [tmp_path / "set"]
    assert run(command, *sets, tmp_path / "new") == 0
    for suffix in ("rec", "idx"):
        (tmp_path / "new" / f"train.{suffix}").rename(tmp_path / "new" / f"ours.{suffix}")
    found = peer("read", tmp_path / "new")["by_key"]
    with RecordReader(tmp_path / "new" / "ours.rec") as reader:
        assert len(found) == len(reader)
        for key in reader.keys.tolist():
            header, data = reader.sample(key)
            label = header.label.tolist() if isinstance(header.label, np.ndarray) else header.label
            assert found[str(key)] == [label, header.id, header.id2, hashlib.sha256(data).hexdigest()]
