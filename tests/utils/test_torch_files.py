"""Weights files that announce more than they hold, or hold other things; torch.load never sees them."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from backbones.weights import WeightsError, load_weights
from utils.torch_files import TorchFileError, check_torch_file


def saved(value: object, *, old: bool = False) -> bytes:
    """What torch.save makes of it."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def check(data: bytes) -> None:
    check_torch_file(io.BytesIO(data), len(data))


def with_pickle(data: bytes, change: object, packing: int = zipfile.ZIP_STORED) -> bytes:
    """The archive with data.pkl changed by a function of its bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("data.pkl"):
                content = change(content)  # type: ignore[operator]
            target.writestr(zipfile.ZipInfo(member.filename), content, packing)
    return out.getvalue()


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_what_training_saves_passes(old: bool, tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = net.state_dict()
    for value in (state, {"state_dict_backbone": state, "state_optimizer": optimizer.state_dict(), "epoch": 3},
                  OrderedDict(net.named_parameters()), {"w": torch.arange(12.0).view(3, 4).t()}):  # fmt: skip
        check(saved(value, old=old))
    (tmp_path / "model.pt").write_bytes(saved({"state_dict_backbone": state}, old=old))
    assert load_weights(tmp_path / "model.pt").keys() == state.keys()


class Call:
    """Pickled as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(bytearray, 1 << 40), "asks for '__builtin__.bytearray'"),  # torch's own reader would make it
        (Call(torch.Tensor, 1 << 40), "asks for 'torch.Tensor'"),
        ({(((1,),),): 1}, "keys are text or small whole numbers"),
        (torch.zeros(2).to_sparse(), "asks for 'torch._utils._rebuild_sparse_tensor'"),
        (torch.zeros(1).expand(1000, 1000), "a tensor reaches beyond its storage of 1 elements"),
        ({1, 2}, "asks for '__builtin__.set'"),
    ],
)
def test_other_objects_are_refused(value: object, message: str, old: bool) -> None:
    with pytest.raises(TorchFileError, match=message):
        check(saved({"w": value}, old=old))


def test_sizes_are_compared_with_the_file() -> None:
    sound = saved({"w": torch.arange(4.0)})
    tail = b"K\x04tq\x07QK\x00K\x04\x85"
    huge = b"\x8a\x05\x00\x00\x00\x00\x10"  # 2 ** 36
    for change, message in (
        (
            lambda data: data.replace(tail, tail.replace(b"K\x04t", huge + b"t")),
            "a storage announces 274877906944 bytes",
        ),
        (lambda data: data.replace(tail, tail.replace(b"QK\x00K\x04", b"QK\x00" + huge)), "reaches beyond its storage"),
        (lambda data: data.replace(tail, tail.replace(b"QK\x00", b"QK\x01")), "reaches beyond its storage"),
        (lambda data: data + bytes(9), ""),
    ):
        changed = with_pickle(sound, change)
        if message:
            with pytest.raises(TorchFileError, match=message):
                check(changed)
        else:
            check(changed)
    old = saved({"w": torch.arange(4.0)}, old=True)
    with pytest.raises(TorchFileError, match="a storage announces"):
        check(old.replace(b"K\x04Ntq", huge + b"Ntq"))


def test_packed_members_and_other_archives_are_refused() -> None:
    sound = saved({"w": torch.zeros(1000)})
    with pytest.raises(TorchFileError, match=r"is compressed, which torch\.save never does"):
        check(with_pickle(sound, lambda data: data, zipfile.ZIP_DEFLATED))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/constants.pkl", b"\x80\x02}.")
    with pytest.raises(TorchFileError, match="no state dict: TorchScript"):
        check(out.getvalue())
    for data in (b"", b"PK\x03\x04", b"\x80\x02}.", b"ustar" * 200):
        with pytest.raises(TorchFileError):
            check(data)


def test_every_cut_of_a_file_is_one_kind_of_error(tmp_path: Path) -> None:
    for old in (False, True):
        sound = saved({"w": torch.zeros(3)}, old=old)
        for length in range(0, len(sound), 7):
            (tmp_path / "model.pt").write_bytes(sound[:length])
            with pytest.raises(WeightsError, match=r"model\.pt"):
                load_weights(tmp_path / "model.pt")
