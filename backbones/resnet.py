"""ResNet-18 and -34 for classification, with the stem for 32 x 32 images or that of ImageNet. No face nets."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from backbones.recompute import check_batch, full_precision, run_block
from backbones.small import Unit

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
_CHANNELS = (64, 128, 256, 512)
_SMALLEST = {"cifar": 8, "imagenet": 32}


class ResNet(nn.Module):
    """(B, in_channels, S, S) float -> (B, embedding_size) float32, not normalised.

    Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1, up to the global
    average pooling, whose 512 numbers are the embedding, as in the published code of SV-Softmax (there torchvision's
    net with the fully connected layer left out, ImageNet stem on 32 x 32 images too: the last map is then 1 x 1).
    Another ``embedding_size`` adds one linear layer.

    Initial values: convolutions He normal (fan out), norms 1 and 0, the linear layer normal with variance 1 / inputs.

    Args:
        name: a key of BLOCKS.
        embedding_size: D; 512 times ``width`` is the pooled map itself, any other a linear layer on it.
        dropout: probability on the pooled map, in [0, 1).
        gradient_checkpointing: recompute each block in the backward pass.
        in_channels: 3 for RGB, 1 for grey.
        stem: "cifar": one 3 x 3 convolution, no pooling; "imagenet": 7 x 7 with stride 2 and 3 x 3 max pooling.
        image_size: S, edge in pixels; at least 8 with the "cifar" stem, 32 with the other.
        width: factor on all channels, rounded, at least one each.

    Raises:
        ValueError: an unknown stem, an image too small for it, or a width that is not in (0, 64].
    """

    def __init__(
        self,
        name: str,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        in_channels: int = 3,
        stem: Literal["cifar", "imagenet"] = "cifar",
        image_size: int = 32,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if stem not in _SMALLEST:
            raise ValueError(f"backbone {name!r}: stem is {stem!r}, must be one of {', '.join(_SMALLEST)}")
        if image_size < (least := _SMALLEST[stem]):
            raise ValueError(f"backbone {name!r}: image_size is {image_size}; with stem {stem!r} at least {least}")
        if not 0.0 < width <= 64.0:
            raise ValueError(f"backbone {name!r}: width is {width}, must be in (0, 64]")
        self.name, self.image_size, self.in_channels = name, image_size, in_channels
        self.embedding_size, self.gradient_checkpointing = embedding_size, gradient_checkpointing
        widths = [max(1, round(channels * width)) for channels in _CHANNELS]
        size, stride = (3, 1) if stem == "cifar" else (7, 2)
        first = nn.Conv2d(in_channels, widths[0], size, stride=stride, padding=size // 2, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.pool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, stride=2, padding=1)
        blocks, channels = [], widths[0]
        for stage, (planned, depth) in enumerate(zip(widths, BLOCKS[name], strict=True)):
            for index in range(depth):
                blocks.append(Unit(channels, planned, stride=2 if stage and not index else 1))
                channels = planned
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout(dropout)
        self.features = nn.Identity() if embedding_size == channels else nn.Linear(channels, embedding_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values again, as the class says."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        if isinstance(self.features, nn.Linear):
            nn.init.normal_(self.features.weight, 0.0, self.features.in_features**-0.5)
            nn.init.zeros_(self.features.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, in_channels, S, S), normalised.

        Returns:
            (B, embedding_size) float32.

        Raises:
            ValueError: for any other shape.
        """
        check_batch(x, self.in_channels, self.image_size, self.name)
        x = self.pool(self.stem(x))
        for block in self.blocks:
            x = run_block(block, x, self.gradient_checkpointing)
        with full_precision(x):
            pooled = torch.flatten(nn.functional.adaptive_avg_pool2d(x.float(), 1), 1)
            return cast(Tensor, self.features(self.dropout(pooled)))
