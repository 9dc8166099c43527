"""Plain stacks of convolutions, as the margin-loss papers train them on MNIST and CIFAR; no shortcuts, no face nets."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor, nn

from backbones.recompute import check_batch, full_precision, run_block

_LARGEST_WIDTH = 64.0


@dataclass(frozen=True)
class Plan:
    """The topology of a net: stages of equal convolutions, each followed by 2 x 2 max pooling.

    Attributes:
        image_size: edge of the images in pixels.
        in_channels: of the images, where the caller does not say.
        stem: channels of one convolution before the first stage; 0: none.
        stages: (channels, convolutions) of each stage.
        kernel_size: edge of all kernels.
        has_prelu: PReLU, else ReLU.
    """

    image_size: int
    in_channels: int
    stem: int
    stages: tuple[tuple[int, int], ...]
    kernel_size: int = 3
    has_prelu: bool = False


# The names say whose topology it is.
PLANS = {
    # Liu et al., "Large-Margin Softmax Loss for Convolutional Neural Networks", ICML 2016. Channels, fully connected
    # layer and their order (convolution, norm, ReLU) are those of the authors' published code for MNIST and CIFAR-10
    # (there also on embeddings: see PlainNet); `lsoftmax_mnist_narrow` is what public re-implementations on MNIST read
    # from the paper's table, 64 channels throughout.
    "lsoftmax_mnist": Plan(28, 1, 64, ((64, 3), (128, 3), (256, 3))),
    "lsoftmax_mnist_narrow": Plan(28, 1, 64, ((64, 3), (64, 3), (64, 3))),
    "lsoftmax_cifar": Plan(32, 3, 64, ((64, 4), (128, 4), (256, 4))),
    # LeNets++ of Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016, with
    # the norms that re-implementations of L-Softmax's figure 2 add: for embeddings of 2 or 3 numbers.
    "lenet_plus": Plan(28, 1, 0, ((32, 2), (64, 2), (128, 2)), kernel_size=5, has_prelu=True),
}


class PlainNet(nn.Module):
    """(B, in_channels, S, S) float -> (B, embedding_size) float32, not normalised.

    Every convolution keeps the size of the map and is followed by batch norm and ReLU (or PReLU); every stage ends in
    2 x 2 max pooling with stride 2, sizes rounded down. Then one fully connected layer and its norm.

    Differs from the authors' code of L-Softmax: no ReLU on the embeddings, as in re-implementations; with it all
    embeddings lie in one orthant, and the angle between two of them cannot exceed 90 degrees. Weight decay acts on all
    weights alike, and biases of convolutions are left out, since norms follow. Caffe's pooling rounds sizes up: there
    the last map of 28 x 28 images is 4 x 4, here it is 3 x 3, as in re-implementations. Those read PReLU in the paper,
    and put it between convolution and norm: `lsoftmax_mnist_narrow` takes only their channels from them, `lenet_plus`
    also the PReLU.

    Initial values: convolutions and fully connected layer normal with variance 2 / inputs (He et al. 2015, fan in; the
    code's "msra"), biases 0, norms 1 and 0, PReLU 0.25.

    Args:
        name: what errors and the run call it.
        plan: the topology.
        embedding_size: D, at least 1; 512 in the code of L-Softmax, 256 in re-implementations on MNIST.
        dropout: probability on the last feature map, in [0, 1).
        gradient_checkpointing: recompute each stage in the backward pass.
        in_channels: 1 for grey, 3 for RGB.
        width: factor on all channels, rounded, at least one each; 0.25 is a quarter (Virtual Softmax's widening t).

    Raises:
        ValueError: a width that is not in (0, 64].
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        in_channels: int = 1,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 < width <= _LARGEST_WIDTH:
            raise ValueError(f"backbone {name!r}: width is {width}, must be in (0, {_LARGEST_WIDTH:g}]")
        self.name, self.image_size, self.gradient_checkpointing = name, plan.image_size, gradient_checkpointing
        self.in_channels, self.embedding_size = in_channels, embedding_size
        channels, edge = self.in_channels, plan.image_size
        unit = partial(_unit, kernel_size=plan.kernel_size, has_prelu=plan.has_prelu)
        self.stem: nn.Module = nn.Identity()
        if plan.stem:
            self.stem = unit(channels, _scaled(plan.stem, width))
            channels = _scaled(plan.stem, width)
        stages = []
        for planned, depth in plan.stages:
            units = []
            for _ in range(depth):
                units.append(unit(channels, _scaled(planned, width)))
                channels = _scaled(planned, width)
            stages.append(nn.Sequential(*units, nn.MaxPool2d(2)))
            edge //= 2
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels * edge * edge, self.embedding_size)
        self.features = nn.BatchNorm1d(self.embedding_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values again, as the class says."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, 0.25)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, in_channels, S, S), normalised.

        Returns:
            (B, embedding_size) in the dtype of the weights (float32).

        Raises:
            ValueError: for any other shape.
        """
        check_batch(x, self.in_channels, self.image_size, self.name)
        x = self.stem(x)
        for stage in self.stages:
            x = run_block(stage, x, self.gradient_checkpointing)
        x = self.dropout(torch.flatten(x, 1))
        with full_precision(x):
            return cast(Tensor, self.features(self.fc(x.to(self.fc.weight.dtype))))


def plain(
    embedding_size: int = 512,
    dropout: float = 0.0,
    gradient_checkpointing: bool = False,
    in_channels: int = 3,
    width: float = 1.0,
    image_size: int = 32,
    stem: int = 0,
    stages: Sequence[Sequence[int]] = ((64, 2), (128, 2), (256, 2)),
    kernel_size: int = 3,
    prelu: bool = False,
) -> PlainNet:
    """A net of the reader's own table, as papers print them: stages of convolutions, each ending in pooling.

    Args:
        embedding_size: as in PlainNet, and so are dropout, gradient_checkpointing, in_channels and width.
        dropout: see there.
        gradient_checkpointing: see there.
        in_channels: see there.
        width: see there.
        image_size: edge of the images in pixels.
        stem: channels of one convolution before the first stage; 0: none.
        stages: (channels, convolutions) of each stage.
        kernel_size: edge of all kernels, odd.
        prelu: PReLU instead of ReLU.

    Raises:
        ValueError: a stage that is not two numbers of at least 1, more stages than the images can be halved, an even
            kernel, a negative stem.
    """
    pairs = [tuple(stage) for stage in stages]
    if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ValueError(
            f"backbone 'plain': stages is {stages}, must be (channels, convolutions) of each stage, all at least 1, as "
            "((64, 3), (128, 3))"
        )
    if image_size >> len(pairs) < 1:
        raise ValueError(
            f"backbone 'plain': {len(pairs)} stages halve images of {image_size} pixels until nothing is left; at most "
            f"{max(0, image_size.bit_length() - 1)} fit"
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"backbone 'plain': kernel_size is {kernel_size}, must be odd, so that maps keep their size")
    if stem < 0:
        raise ValueError(f"backbone 'plain': stem is {stem}, must be at least 1, or 0 for none")
    plan = Plan(image_size, in_channels, stem, tuple((c, n) for c, n in pairs), kernel_size, prelu)
    return PlainNet("plain", plan, embedding_size, dropout, gradient_checkpointing, in_channels, width)


def plain_options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The arguments of `plain` that these shapes tell and that are not its defaults; {} where they are no such net's.

    Images of several sizes end in the same last map, as 24 and 28 pixels do after three stages: the smallest is told.
    """
    stages: list[tuple[int, int]] = []
    kernel_size = 0
    while len(shape := shapes.get(f"stages.{len(stages)}.0.0.weight", ())) == 4:
        depth = 1
        while f"stages.{len(stages)}.{depth}.0.weight" in shapes:
            depth += 1
        stages.append((shape[0], depth))
        kernel_size = shape[-1]
    linear, stem = shapes.get("fc.weight", ()), shapes.get("stem.0.weight", (0,))
    if (
        len(linear) != 2
        or not stem
        or not stages
        or min(channels for channels, _ in stages) < 1
        or kernel_size % 2 == 0
    ):
        return {}
    edge = isqrt(linear[1] // stages[-1][0])
    found = {
        "image_size": edge << len(stages), "stem": stem[0], "stages": tuple(stages), "kernel_size": kernel_size,
        "prelu": "stages.0.0.2.weight" in shapes,
    }  # fmt: skip
    defaults = inspect.signature(plain).parameters
    return {name: value for name, value in found.items() if value != defaults[name].default} if edge else {}


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _unit(in_channels: int, channels: int, *, kernel_size: int, has_prelu: bool) -> nn.Sequential:
    """One convolution with norm and activation."""
    convolution = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
    activation = nn.PReLU(channels) if has_prelu else nn.ReLU(inplace=True)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), activation)
