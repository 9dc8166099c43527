"""Tensors in and out bit for bit, in memory of their own, and headers that are not believed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from utils.safetensors_files import SafetensorsError, read_safetensors, read_safetensors_metadata, write_safetensors

TENSORS = {
    "kernel": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
    "count": torch.tensor(7),
    "half": torch.randn(5).half(),
    "none": torch.zeros(0, 3),
    "strange": torch.tensor([float("nan"), float("inf"), -0.0]),
}


def test_tensors_and_text_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, TENSORS, {"network": "tiny", "of": "ä"})
    found = read_safetensors(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].nan_to_num(5.0), tensor.nan_to_num(5.0)), name
    assert read_safetensors_metadata(path) == {"network": "tiny", "of": "ä"}
    path.write_bytes(bytes(path.stat().st_size))  # what was read does not follow the file
    assert torch.equal(found["kernel"], TENSORS["kernel"])


def test_files_without_metadata_have_none(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {}, {})
    assert read_safetensors_metadata(tmp_path / "a.safetensors") == {}
    assert read_safetensors(tmp_path / "a.safetensors") == {}


def header(entries: object, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize("content", [
    b"", b"short", header({}, 1 << 62), header({}, 1 << 26) + bytes(1 << 10), header({}, 1), b"PK\x03\x04" + bytes(100),
    header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
    header({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}) + bytes(4),
    header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + bytes(4),
    header({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}) + bytes(3),
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}) + bytes(5),
    header({"__metadata__": {"a": 3}}), header([1]), struct.pack("<Q", 4000) + b"[" * 4000,
])  # fmt: skip
def test_what_a_header_announces_is_not_believed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    for read in (read_safetensors, read_safetensors_metadata):
        with pytest.raises(SafetensorsError, match=r"a\.safetensors: no \.safetensors file,"):
            read(tmp_path / "a.safetensors")


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match=r"absent\.safetensors: cannot be read: No such file"):
        read_safetensors(tmp_path / "absent.safetensors")
