"""The improved residual nets of face recognition (r18 .. r200); parameter names and shapes are arcface_torch's."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from backbones.recompute import check_face_batch, full_precision, run_block

# Residual blocks in each of the four stages.
DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "r18": (2, 2, 2, 2),
    "r34": (3, 4, 6, 3),
    "r50": (3, 4, 14, 3),
    "r100": (3, 13, 30, 3),
    "r200": (6, 26, 60, 6),
}
WIDTHS = (64, 128, 256, 512)
LAST_MAP = 7 * 7  # 112 pixels halved by each of the four stages


class ResidualBlock(nn.Module):
    """norm, conv, norm, PReLU, conv (carries the stride), norm, plus the shortcut: no activation after the sum.

    The block of ArcFace (Deng et al. 2019, section 3.1, "improved residual unit" of Han et al. 2017).

    Args:
        in_width: channels of the input.
        width: channels of the output.
        stride: 1 or 2, of the second convolution and of the shortcut.
    """

    def __init__(self, in_width: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_width != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_width, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return cast(Tensor, self.bn3(self.conv2(out)) + shortcut)


class IResNet(nn.Module):
    """Residual net for aligned faces: (B, in_channels, 112, 112) float -> (B, embedding_size), not normalised.

    Autocast is the caller's. The last linear layer and the last norm run in the precision of their weights
    (float32) all the same, as the margin heads need embeddings that are not rounded to half precision.
    As in arcface_torch the scale of the last norm stays 1 and is not trained.

    Args:
        name: a key of DEPTHS.
        embedding_size: D, at least 1.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute each block in the backward pass.
        in_channels: 3 for RGB.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.embedding_size = embedding_size
        self.gradient_checkpointing = gradient_checkpointing
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        in_widths = (WIDTHS[0], *WIDTHS[:-1])
        stages = [_stage(i, w, depth) for i, w, depth in zip(in_widths, WIDTHS, DEPTHS[name], strict=True)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(WIDTHS[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(WIDTHS[-1] * LAST_MAP, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, in_channels, 112, 112), normalised to about [-1, 1].

        Returns:
            (B, embedding_size) in the dtype of the weights.

        Raises:
            ValueError: for any other shape.
        """
        check_face_batch(x, self.in_channels, self.name)
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = run_block(block, x, self.gradient_checkpointing)
        x = self.dropout(torch.flatten(self.bn2(x), 1))
        with full_precision(x):
            return cast(Tensor, self.features(self.fc(x.to(self.fc.weight.dtype))))


def _stage(in_width: int, width: int, depth: int) -> nn.Sequential:
    """One stage: its first block halves the map, the others keep it."""
    return nn.Sequential(
        ResidualBlock(in_width, width, stride=2), *(ResidualBlock(width, width) for _ in range(depth - 1))
    )
