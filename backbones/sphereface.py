"""The nets of SphereFace (sphereface20, 36, 64): 3 x 3 convolutions and PReLU, no normalisation layer at all."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from backbones.recompute import check_face_batch, full_precision, run_block

# Residual units in each of the four stages; with the first convolution of each stage they make 20, 36 and 64.
UNITS: dict[str, tuple[int, int, int, int]] = {
    "sphereface20": (1, 2, 4, 1),
    "sphereface36": (2, 4, 8, 2),
    "sphereface64": (3, 8, 16, 3),
}
WIDTHS = (64, 128, 256, 512)
LAST_MAP = 7 * 7  # 112 pixels halved by each of the four stages; 7 x 6 for the paper's images of 112 x 96
RESIDUAL_STD = 0.01


class Unit(nn.Module):
    """conv, PReLU, conv, PReLU, plus the input: no activation after the sum.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.prelu1 = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.prelu2 = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        return cast(Tensor, x + self.prelu2(self.conv2(self.prelu1(self.conv1(x)))))


class Entry(nn.Module):
    """A stage's first convolution, which halves the map, and PReLU.

    Args:
        in_width: channels of the input.
        width: channels of the output.
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, width, 3, stride=2, padding=1)
        self.prelu = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, width, H / 2, W / 2)."""
        return cast(Tensor, self.prelu(self.conv(x)))


class SphereFaceNet(nn.Module):
    """Residual net without norms: (B, in_channels, 112, 112) float -> (B, embedding_size), not normalised.

    Liu et al. 2017 (SphereFace). Blocks, biases and initial values are those of the authors' published Caffe files:
    stages and the last layer uniform with variance 1 / inputs, the convolutions of the units normal with standard
    deviation 0.01, without a bias. Two things differ. Faces here are 112 x 112, not 112 x 96, which makes the last
    layer a sixth larger. And the file of the 64-layer net has 7 units in its second stage, hence 62 convolutions; this
    one has 8, as the authors' later code in PyTorch, and 64. Autocast is the caller's; the last layer runs in the
    precision of its weights.

    Args:
        name: a key of UNITS.
        embedding_size: D, at least 1.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute each unit in the backward pass.
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
        in_widths = (in_channels, *WIDTHS[:-1])
        stages = [
            nn.Sequential(Entry(in_width, width), *(Unit(width) for _ in range(units)))
            for in_width, width, units in zip(in_widths, WIDTHS, UNITS[name], strict=True)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(WIDTHS[-1] * LAST_MAP, embedding_size)
        for module in self.modules():
            if isinstance(module, Unit):
                nn.init.normal_(module.conv1.weight, 0.0, RESIDUAL_STD)
                nn.init.normal_(module.conv2.weight, 0.0, RESIDUAL_STD)
            elif isinstance(module, Entry):
                _init_by_inputs(module.conv)
        _init_by_inputs(self.fc)

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
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = run_block(block, x, self.gradient_checkpointing)
        x = self.dropout(torch.flatten(x, 1))
        with full_precision(x):
            return cast(Tensor, self.fc(x.to(self.fc.weight.dtype)))


def _init_by_inputs(layer: nn.Conv2d | nn.Linear) -> None:
    """Uniform in +-sqrt(3 / inputs), which is what Caffe calls xavier; bias 0."""
    bound = (3 / layer.weight[0].numel()) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
