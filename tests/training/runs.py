"""Small runs that tests build inside a rank, without data on disk, a launcher or a log. No tests here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from backbones import BACKBONES
from dataset import Batch
from sources.synthetic import SyntheticSource
from training.build import build_run, build_stream
from training.inputs import Inputs
from training.run import Run
from utils.config import Config
from utils.distributed import Ranks
from utils.images import ImageFormat

Weights = dict[str, np.ndarray]
FORMAT = ImageFormat(8, 8, 3)
CLASSES, IMAGES = 7, 48


class PlainNet(nn.Module):
    """A net whose output for an image does not depend on the batch: what equalities between batch sizes need."""

    image_size = 8

    def __init__(self, embedding_size: int, dropout: float, gradient_checkpointing: bool, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 3, stride=2)
        self.fc = nn.Linear(36, embedding_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.conv(images)).flatten(1)).float()


class NormNet(PlainNet):
    """The same with batch normalisation and dropout: state and randomness that resuming must carry over."""

    def __init__(self, embedding_size: int, dropout: float, gradient_checkpointing: bool, in_channels: int) -> None:
        super().__init__(embedding_size, dropout, gradient_checkpointing, in_channels)
        self.norm = nn.BatchNorm1d(36)
        self.dropout = nn.Dropout(0.3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(torch.tanh(self.conv(images)).flatten(1))
        return self.fc(self.dropout(hidden)).float()


NETS = {"plain": PlainNet, "norm": NormNet}


def make_ranks() -> Ranks:
    """This process's place in the group that the test pool has started."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    return Ranks(rank, world_size, rank, world_size, torch.device("cpu"))


def make_run(network: str = "plain", **keys: Any) -> Run:
    """A run on 48 images of 7 classes, 8 x 8 pixels of noise."""
    settings: dict[str, Any] = {
        "rec": "synthetic", "network": network, "embedding_size": 6, "head": "softmax", "batch_size": 6, "lr": 0.1,
        "num_epoch": 3, "num_workers": 0, "seed": 3, "channels_last": False, "output": "",
        "async_save": False,
    }  # fmt: skip
    source = SyntheticSource(CLASSES, IMAGES, FORMAT)
    # Known only while the run is built: other tests walk over the registry.
    BACKBONES[network] = NETS[network]
    try:
        return build_run(Config(**{**settings, **keys}), make_ranks(), Inputs(source))
    finally:
        del BACKBONES[network]


def batches_of(run: Run, first_step: int, steps: int) -> list[list[Batch]]:
    """The micro-batches of some steps on this rank."""
    stream = iter(build_stream(run, first_step))
    return [[next(stream) for _ in range(run.config.gradient_acc)] for _ in range(steps)]


def weights_of(run: Run) -> dict[str, np.ndarray]:
    """Backbone, all prototypes, the head's own numbers and all momentum, gathered on every rank."""
    tensors: dict[str, Any] = {f"backbone/{name}": value for name, value in run.backbone.state_dict().items()}
    tensors |= {f"fc/{name}": value for name, value in run.fc.sharded_state_dict().items()}
    rows = run.fc_optimizer.sharded_state_dict()
    for index, state in rows.pop("head", {"state": {}})["state"].items():
        tensors |= {f"head/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors |= {f"rows/{name}": value for name, value in rows.items()}
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in tensors.items()}
    return {name: value.detach().numpy().copy() for name, value in whole.items()}


def folder_of(run: Run) -> Path:
    """The run's folder."""
    return Path(run.config.output or "")
