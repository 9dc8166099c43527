"""MobileFaceNet (mbf), a small net of depthwise convolutions; parameter names and shapes are arcface_torch's."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from backbones.recompute import check_face_batch, full_precision, run_block

WIDTH = 128
LAST_WIDTH = 512


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm and, unless it is the linear end of a bottleneck, PReLU.

    Args:
        in_width: channels of the input.
        width: channels of the output.
        kernel: edge of the square kernel; odd kernels up to 3 are padded to keep the map, larger ones are not.
        stride: 1 or 2.
        groups: groups of the convolution; ``width`` makes it depthwise.
        activation: append a PReLU with one slope per channel.
    """

    def __init__(
        self, in_width: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        padding = 1 if kernel == 3 else 0
        parts: list[nn.Module] = [
            nn.Conv2d(in_width, width, kernel, stride=stride, padding=padding, groups=groups, bias=False),
            nn.BatchNorm2d(width),
        ]
        if activation:
            parts.append(nn.PReLU(width))
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, width, H', W')."""
        return cast(Tensor, self.layers(x))


class Bottleneck(nn.Module):
    """Widen to ``inner`` channels, filter each by itself, project to ``width`` without activation.

    Args:
        in_width: channels of the input.
        width: channels of the output.
        inner: channels between.
        stride: of the depthwise convolution; a bottleneck of stride 1 adds its input.
    """

    def __init__(self, in_width: int, width: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        self.is_residual = stride == 1
        self.layers = nn.Sequential(
            ConvUnit(in_width, inner),
            ConvUnit(inner, inner, kernel=3, stride=stride, groups=inner),
            ConvUnit(inner, width, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_width, H, W) -> (B, width, H / stride, W / stride)."""
        out = cast(Tensor, self.layers(x))
        return x + out if self.is_residual else out


class Stage(nn.Module):
    """``depth`` residual bottlenecks of one width.

    Args:
        width: channels.
        depth: number of bottlenecks.
        inner: channels inside each.
    """

    def __init__(self, width: int, depth: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Bottleneck(width, width, inner) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        return cast(Tensor, self.layers(x))


class EmbeddingHead(nn.Module):
    """The 7 x 7 map weighted by a depthwise convolution over all of it, then a linear layer and a norm.

    Args:
        embedding_size: D.
        dropout: probability before the linear layer, in [0, 1); arcface_torch's mbf has none.
    """

    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvUnit(LAST_WIDTH, LAST_WIDTH, kernel=7, groups=LAST_WIDTH, activation=False),
            nn.Sequential(nn.Flatten(), nn.Dropout(dropout)),
            nn.Linear(LAST_WIDTH, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 512, 7, 7) -> (B, D)."""
        return cast(Tensor, self.layers(x))


class MobileFaceNet(nn.Module):
    """Small net for aligned faces: (B, in_channels, 112, 112) float -> (B, embedding_size), not normalised.

    Chen et al. 2018, in arcface_torch's doubled width: stages of 1, 4, 6 and 2 bottlenecks. Autocast is the
    caller's; from the last 1 x 1 convolution on all runs in the precision of the weights (float32).

    Args:
        embedding_size: D, at least 1.
        dropout: probability before the last linear layer, in [0, 1).
        gradient_checkpointing: recompute each bottleneck in the backward pass.
        in_channels: 3 for RGB.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.embedding_size = embedding_size
        self.gradient_checkpointing = gradient_checkpointing
        self.layers = nn.ModuleList(
            [
                ConvUnit(in_channels, WIDTH, kernel=3, stride=2),
                ConvUnit(WIDTH, WIDTH, kernel=3, groups=WIDTH // 2),
                Bottleneck(WIDTH, WIDTH, inner=128, stride=2),
                Stage(WIDTH, depth=4, inner=128),
                Bottleneck(WIDTH, 2 * WIDTH, inner=256, stride=2),
                Stage(2 * WIDTH, depth=6, inner=256),
                Bottleneck(2 * WIDTH, 2 * WIDTH, inner=512, stride=2),
                Stage(2 * WIDTH, depth=2, inner=256),
            ]
        )
        self.conv_sep = ConvUnit(2 * WIDTH, LAST_WIDTH)
        self.features = EmbeddingHead(embedding_size, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, in_channels, 112, 112), normalised to about [-1, 1].

        Returns:
            (B, embedding_size) in the dtype of the weights.

        Raises:
            ValueError: for any other shape.
        """
        check_face_batch(x, self.in_channels, "mbf")
        for layer in self.layers:
            for block in layer.layers if isinstance(layer, Stage) else (layer,):
                x = run_block(block, x, self.gradient_checkpointing)
        with full_precision(x):
            x = self.conv_sep(x.to(next(self.conv_sep.parameters()).dtype))
            return cast(Tensor, self.features(x))
