"""Residual nets that two CPU cores can train: `small` and `tiny` for aligned faces, `digits` for 28 x 28 images.

No iResNet variant belongs here, and no net whose weights anyone has published: shapes may change with a measurement.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from backbones.recompute import check_batch, full_precision, run_block

FACE_SIZE = 112
DIGIT_SIZE = 28


class Unit(nn.Module):
    """conv, norm, ReLU, conv, norm, plus the shortcut, then ReLU: the basic block of He et al. 2016 (figure 2).

    ReLU and not the field's PReLU: eager PReLU made `small` 1.6 times slower in bf16 on CPU and verified no better
    (82.3 % against 82.4 % on LFW, each after 3 epochs of 32 to 256 channels).

    Args:
        in_width: channels of the input.
        width: channels of the output.
        stride: 1 or 2, of the first convolution (cheaper than in the second, where iResNet has it) and of the shortcut.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_width != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, width, H / stride, W / stride), sizes rounded up."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return cast(Tensor, self.relu(out + shortcut))


class SmallResidualNet(nn.Module):
    """(B, in_channels, S, S) float -> (B, embedding_size) float32, not normalised.

    A strided 3 x 3 stem, one stage per entry of ``widths`` (all but perhaps the first halve the map), the output of
    ArcFace (Deng et al. 2019, option E): norm, dropout, fully connected, norm. Autocast is the caller's; the fully
    connected layer and the last norm run in float32 all the same, since the margin heads need unrounded embeddings.

    Initial values: convolutions He normal (fan out), the fully connected layer normal with variance 1 / inputs and
    bias 0, norms 1 and 0. An embedding therefore starts with a norm of about sqrt(embedding_size), whatever the net.

    Args:
        name: the net's name in messages.
        image_size: S, pixels along an edge.
        widths: channels of the stages, at least one.
        depths: residual blocks of the stages, each at least 1.
        halve_first: whether the first stage halves the map too, as the others do; four times cheaper there.
        embedding_size: D, at least 1.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute each block in the backward pass.
        in_channels: 3 for RGB, 1 for grey.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        halve_first: bool,
        embedding_size: int,
        dropout: float,
        gradient_checkpointing: bool,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.in_channels = in_channels
        self.embedding_size = embedding_size
        self.gradient_checkpointing = gradient_checkpointing
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        map_size = (image_size + 1) // 2
        in_width = widths[0]
        blocks = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first_stride = 2 if stage > 0 or halve_first else 1
            for index in range(depth):
                blocks.append(Unit(in_width, width, stride=first_stride if index == 0 else 1))
                in_width = width
            map_size = (map_size + first_stride - 1) // first_stride
        self.blocks = nn.ModuleList(blocks)
        self.bn = nn.BatchNorm2d(in_width)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_width * map_size * map_size, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values again, as the class says."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, 0.0, self.fc.in_features**-0.5)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, in_channels, S, S), normalised to about [-1, 1].

        Returns:
            (B, embedding_size) in the dtype of the weights (float32).

        Raises:
            ValueError: for any other shape.
        """
        check_batch(x, self.in_channels, self.image_size, self.name)
        x = self.stem(x)
        for block in self.blocks:
            x = run_block(block, x, self.gradient_checkpointing)
        x = self.dropout(torch.flatten(self.bn(x), 1))
        with full_precision(x):
            return cast(Tensor, self.features(self.fc(x.to(self.fc.weight.dtype))))


def small(
    embedding_size: int = 256, dropout: float = 0.0, gradient_checkpointing: bool = False, in_channels: int = 3
) -> SmallResidualNet:
    """The net of the faces_small configs: 112 x 112 faces, 3.3 million parameters at 256 dimensions.

    Forward and backward, channels_last, eager: 124 images in fp32 and 226 in bf16 per CPU second on one thread of an
    AMD EPYC with avx512_bf16. The time goes into maps, not channels: a first stage of 56 x 56 instead of 28 x 28 gained
    1.5 points of LFW in a trial on small images, half as many channels again 0.3, each for twice the time.

    Args:
        embedding_size: D, at least 1.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute blocks in the backward pass.
        in_channels: 3 for RGB.
    """
    return SmallResidualNet(
        "small",
        image_size=FACE_SIZE,
        widths=(24, 48, 96, 192),
        depths=(1, 2, 2, 1),
        halve_first=False,
        embedding_size=embedding_size,
        dropout=dropout,
        gradient_checkpointing=gradient_checkpointing,
        in_channels=in_channels,
    )


def tiny(
    embedding_size: int = 128, dropout: float = 0.0, gradient_checkpointing: bool = False, in_channels: int = 3
) -> SmallResidualNet:
    """The quickstart's net: 112 x 112 faces, 0.6 million parameters at 128 dimensions, a seventh of ``small`` in time.

    Measured in the same way: 940 images/s in fp32, 1,400 in bf16, per CPU second on one thread.

    Args:
        embedding_size: D, at least 1.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute blocks in the backward pass.
        in_channels: 3 for RGB.
    """
    return SmallResidualNet(
        "tiny",
        image_size=FACE_SIZE,
        widths=(16, 32, 64, 128),
        depths=(1, 1, 1, 1),
        halve_first=True,
        embedding_size=embedding_size,
        dropout=dropout,
        gradient_checkpointing=gradient_checkpointing,
        in_channels=in_channels,
    )


def digits(
    embedding_size: int = 64, dropout: float = 0.0, gradient_checkpointing: bool = False, in_channels: int = 1
) -> SmallResidualNet:
    """A classifier's net for 28 x 28 images such as MNIST: two stages, the last map is 4 x 4.

    Args:
        embedding_size: D, at least 1; 2 gives embeddings that can be plotted as they are.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute blocks in the backward pass.
        in_channels: 1 for grey.
    """
    return SmallResidualNet(
        "digits",
        image_size=DIGIT_SIZE,
        widths=(32, 64),
        depths=(1, 1),
        halve_first=True,
        embedding_size=embedding_size,
        dropout=dropout,
        gradient_checkpointing=gradient_checkpointing,
        in_channels=in_channels,
    )
