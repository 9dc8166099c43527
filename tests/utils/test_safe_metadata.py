"""Checkpoint metadata that lies about its folder, or would run code: refused before torch reads a byte."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from utils.safe_metadata import SafeReader, UnsafeFileError


def tensors() -> dict[str, torch.Tensor]:
    return {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3), "h": torch.zeros(0, 2, dtype=torch.bfloat16)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dcp_save(tensors(), storage_writer=FileSystemWriter(tmp_path / "step", per_thread_copy_ahead=0), no_dist=True)
    return tmp_path / "step"


def rewrite(folder: Path, change: Callable[[Any], None]) -> None:
    """The folder's metadata after a change to torch's own objects."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata, 4))


def test_it_says_what_torchs_own_reader_says(folder: Path) -> None:
    ours, theirs = SafeReader(folder).read_metadata(), FileSystemReader(folder).read_metadata()
    assert ours.state_dict_metadata == theirs.state_dict_metadata
    assert ours.storage_data == theirs.storage_data
    loaded = {name: torch.full_like(tensor, 9) for name, tensor in tensors().items()}
    dcp_load(loaded, storage_reader=SafeReader(folder), no_dist=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors().items())


def test_nothing_it_names_is_run(folder: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    (folder / ".metadata").write_bytes(pickle.dumps(Metadata({}, planner_data=Attack(), storage_data={}), 4))
    with pytest.raises(UnsafeFileError, match=r"\.metadata: the pickle asks for 'posix.mkdir'"):
        SafeReader(folder).read_metadata()
    assert not (tmp_path / "made").exists()


def change_place(**fields: Any) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        index = next(index for index in metadata.storage_data if index.fqn == "w")
        metadata.storage_data[index] = replace(metadata.storage_data[index], **fields)

    return change


def change_tensor(name: str, value: Any) -> Callable[[Any], None]:
    return lambda metadata: setattr(metadata.state_dict_metadata["w"], name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_place(relative_path="../outside.distcp"), "is no file of this folder"),
        (change_place(relative_path="/etc/hostname"), "is no file of this folder"),
        (change_place(relative_path="absent.distcp"), "is no file of this folder"),
        (change_place(offset=1 << 40), "its slices reach beyond"),
        (change_place(offset=-1), "an offset is -1"),
        (change_place(length=1 << 40), "its slices reach beyond"),
        (change_place(transform_descriptors=["zstd"]), "packed by an extension"),
        (change_tensor("size", torch.Size([1 << 40, 3])), "its chunks hold 6 of"),
        (change_tensor("size", torch.Size([1, 3])), "a chunk lies outside of its tensor"),
        (change_tensor("chunks", []), "its chunks hold 0 of 6"),
        (change_tensor("chunks", None), "not a list"),
        (lambda metadata: metadata.state_dict_metadata.update(w=BytesStorageMetadata()), "asks for"),
        (lambda metadata: metadata.state_dict_metadata.update({3: 4}), "a TensorStorageMetadata was expected"),
        (lambda metadata: setattr(metadata, "storage_data", None), "storage_data is a NoneType"),
    ],
)
def test_what_does_not_fit_the_files_is_refused(change: Callable[[Any], None], message: str, folder: Path) -> None:
    (folder.parent / "outside.distcp").write_bytes((folder / "__0_0.distcp").read_bytes())
    rewrite(folder, change)
    with pytest.raises(UnsafeFileError, match=message):
        SafeReader(folder).read_metadata()


def test_a_slice_that_torch_save_did_not_write_is_refused(folder: Path) -> None:
    data = bytearray((folder / "__0_0.distcp").read_bytes())
    place = data.index(b"ctorch\nFloatStorage")
    data[place : place + 19] = b"cos\nsystem\nFloatSto"
    (folder / "__0_0.distcp").write_bytes(data)
    with pytest.raises(BaseException, match=r"__0_0.distcp, byte \d+"):
        dcp_load({"w": torch.zeros(2, 3)}, storage_reader=SafeReader(folder), no_dist=True)
