"""The peer's run-time patches, on a small clone written here: names, devices, process group, data path; all undone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

import losses
from benchmarks.peer import ArcFaceTorch, add_peer_option, find_peer
from benchmarks.stand_ins import missing_packages
from utils.recordio import RecordHeader, RecordWriter, pack_record

FILES = {
    "partial_fc_v2.py": """
import torch
from torch import distributed
from losses import twice
class PartialFC_V2(torch.nn.Module):
    def forward(self, x):
        assert distributed.get_world_size() == 1
        with torch.cuda.amp.autocast(True):
            y = torch.zeros(2).cuda() + x.to(device=0)
        with torch.cuda.stream(torch.cuda.Stream(0)):
            torch.cuda.current_stream().wait_stream(torch.cuda.Stream(0))
        distributed.init_process_group("nccl")
        torch.cuda.set_device(0)
        return twice(y)
""",
    "losses.py": "def twice(x):\n    return 2 * x\n",
    "lr_scheduler.py": """
from torch.optim.lr_scheduler import _LRScheduler
class Half(_LRScheduler):
    def __init__(self, optimizer, last_epoch=-1, verbose=False):
        super().__init__(optimizer, last_epoch=last_epoch, verbose=verbose)
    def get_lr(self):
        return [lr / 2 for lr in self.base_lrs]
""",
    "backbones/__init__.py": "from .net import Net\n",
    "backbones/net.py": "class Net: pass\n",
}


@pytest.fixture
def peer(tmp_path: Path) -> ArcFaceTorch:
    for name, text in FILES.items():
        (path := tmp_path / "arcface_torch" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found, reason = find_peer(tmp_path / "arcface_torch")
    assert found is not None
    assert reason == ""
    return found


def test_it_runs_on_a_cpu_beside_modules_of_the_same_name(peer: ArcFaceTorch) -> None:
    with peer.running():
        layer = peer.module("partial_fc_v2").PartialFC_V2().cuda()
        assert layer(torch.ones(2)).tolist() == [2, 2]
        assert peer.module("losses").twice(3) == 6
        assert peer.module("backbones").Net.__module__ == "backbones.net"
        assert peer.module("losses") is peer.module("losses")
        assert sys.modules["losses"] is losses
        with peer.in_place_of_ours():
            assert sys.modules["losses"] is peer._loaded["losses"]
    assert sys.modules["losses"] is losses
    assert str(peer.directory) not in sys.path


def test_everything_is_put_back(peer: ArcFaceTorch) -> None:
    before = (torch.Tensor.to, nn.Module.cuda, nn.parallel.DistributedDataParallel, dist.init_process_group)
    streams = (torch.cuda.Stream, torch.cuda.stream, torch.cuda.set_device, torch.cuda.amp.autocast)
    with peer.running():
        assert nn.Module.cuda is not before[1]
    with pytest.raises(ImportError, match="no_such_module"), peer.running():
        peer.module("no_such_module")
    assert "losses" in sys.modules
    assert before == (torch.Tensor.to, nn.Module.cuda, nn.parallel.DistributedDataParallel, dist.init_process_group)
    assert streams == (torch.cuda.Stream, torch.cuda.stream, torch.cuda.set_device, torch.cuda.amp.autocast)
    assert not dist.is_initialized()
    assert not set(missing_packages()) & set(sys.modules)
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            torch.zeros(1).cuda()


def test_its_schedule_and_its_parallel_wrapper(peer: ArcFaceTorch) -> None:
    with peer.running():
        net = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        assert peer.module("lr_scheduler").Half(optimizer).get_last_lr() == [0.5]
        wrapped = nn.parallel.DistributedDataParallel(net, device_ids=[0], broadcast_buffers=False)
        wrapped(torch.ones(1, 2)).sum().backward()
        assert net.bias.grad is not None


def test_a_missing_clone_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    parser = argparse.ArgumentParser()
    add_peer_option(parser)
    assert "ARCFACE_TORCH names a clone" in find_peer(parser.parse_args([]).arcface_torch)[1]
    assert find_peer(tmp_path) == (None, find_peer(tmp_path)[1])
    assert "has no partial_fc_v2.py" in find_peer(tmp_path)[1]
    monkeypatch.setenv("ARCFACE_TORCH", str(tmp_path))
    parser = argparse.ArgumentParser()
    add_peer_option(parser)
    assert parser.parse_args([]).arcface_torch == tmp_path


def test_it_is_told_apart_by_its_files(peer: ArcFaceTorch) -> None:
    before = peer.describe()
    (peer.directory / "losses.py").write_text("def twice(x):\n    return x + x\n")
    assert before["commit"] == "unknown"
    assert len(before["sha256"]) == 12
    assert peer.describe() != before


@pytest.mark.skipif("mxnet" not in missing_packages(), reason="mxnet itself is installed")
def test_stand_in_for_mxnet_reads_what_we_write(tmp_path: Path) -> None:
    mxnet = missing_packages()["mxnet"]
    image = np.full((8, 6, 3), (200, 100, 0), np.uint8)
    payload = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
    magic = b"\x0a\x23\xd7\xce"
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        writer.write(0, pack_record(RecordHeader(2, np.array([3, 4], np.float32), 0, 0), b""))
        writer.write(1, pack_record(RecordHeader(0, 7.0, 1, 0), payload))
        writer.write(2, magic * 2 + b"end")
    records = mxnet.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "r")
    assert records.keys == [0, 1, 2]
    header, _ = mxnet.recordio.unpack(records.read_idx(0))
    assert (header.flag, header.label.tolist()) == (2, [3, 4])
    header, body = mxnet.recordio.unpack(records.read_idx(1))
    assert (header.label, body) == (7.0, payload)
    assert records.read_idx(2) == magic * 2 + b"end"
    decoded = mxnet.image.imdecode(body)
    assert np.array_equal(decoded.asnumpy(), image)
    assert mxnet.image.resize_short(decoded, 3).shape == (4, 3, 3)
    channels = mxnet.nd.transpose(decoded, axes=(2, 0, 1))
    assert channels.asnumpy()[:, 0, 0].tolist() == [200, 100, 0]
    assert mxnet.ndarray.flip(data=channels, axis=2).shape == (3, 8, 6)


@pytest.mark.skipif("torchvision" not in missing_packages(), reason="torchvision itself is installed")
def test_stand_in_for_torchvision_normalises_as_the_peer_asks() -> None:
    transforms = missing_packages()["torchvision"].transforms
    chain = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]),
        ]
    )
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 0] = 255
    results = {tuple(chain(image)[1, 0].tolist()) for _ in range(40)}
    assert results == {(1.0, -1.0), (-1.0, 1.0)}
