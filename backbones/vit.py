"""Vision transformers for aligned faces (vit_t .. vit_h); parameter names and shapes are arcface_torch's."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.recompute import FACE_SIZE, check_face_batch, full_precision, run_block

# Channels of a token and number of blocks.
SIZES: dict[str, tuple[int, int]] = {
    "vit_t": (256, 12),
    "vit_s": (512, 12),
    "vit_b": (512, 24),
    "vit_l": (768, 24),
    "vit_h": (1024, 48),
}
# name -> size, stochastic depth of the last block, share of masked tokens. The short names and the long ones are those
# of arcface_torch's configs; it has no plain vit_l, which here is its only large one.
NETS: dict[str, tuple[str, float, float]] = {
    "vit_t": ("vit_t", 0.1, 0.1),
    "vit_s": ("vit_s", 0.1, 0.1),
    "vit_b": ("vit_b", 0.1, 0.1),
    "vit_l": ("vit_l", 0.05, 0.05),
    "vit_h": ("vit_h", 0.1, 0.0),
    "vit_t_dp005_mask0": ("vit_t", 0.05, 0.0),
    "vit_s_dp005_mask_0": ("vit_s", 0.05, 0.0),
    "vit_b_dp005_mask_005": ("vit_b", 0.05, 0.05),
    "vit_l_dp005_mask_005": ("vit_l", 0.05, 0.05),
}
PATCH = 9  # pixels along an edge; 12 x 12 patches, and the last 4 rows and columns of a face are not looked at
NUM_TOKENS = (FACE_SIZE // PATCH) ** 2
NUM_HEADS = 8
WIDENING = 4  # of the layer inside a block's perceptron
NORM_EPS = 2e-5  # of the batch norms at the end
INIT_STD = 0.02


class PatchEmbedding(nn.Module):
    """One token for each square of 9 x 9 pixels.

    Args:
        in_channels: of the images.
        width: channels of a token.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, 112, 112) -> (B, 144, width), row by row."""
        return cast(Tensor, self.proj(x).flatten(2).transpose(1, 2))


class Attention(nn.Module):
    """Self-attention of 8 heads, softmax(q k' / sqrt(width / 8)) v (Vaswani et al. 2017, section 3.2).

    Inside autocast the product runs in its reduced precision, with sums and softmax in float32 inside the kernel;
    arcface_torch multiplies in float32 there, for several times the time and memory.

    Args:
        width: channels of a token, a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same shape."""
        query, key, value = self.qkv(x).unflatten(-1, (3, NUM_HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).flatten(2)))


class Perceptron(nn.Module):
    """Two linear layers with ReLU6 between, on each token by itself.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, WIDENING * width)
        self.fc2 = nn.Linear(WIDENING * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same shape."""
        return cast(Tensor, self.fc2(F.relu6(self.fc1(x))))


class Block(nn.Module):
    """Attention, then a perceptron, each on the normed tokens and added to them.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)

    def forward(self, x: Tensor, branch_scales: Tensor | None = None) -> Tensor:
        """(B, T, width) -> the same shape; ``branch_scales`` (2, B, 1, 1) multiplies what the two branches add."""
        mixed = self.attn(self.norm1(x))
        x = x + (mixed if branch_scales is None else mixed * branch_scales[0])
        grown = self.mlp(self.norm2(x))
        return cast(Tensor, x + (grown if branch_scales is None else grown * branch_scales[1]))


class VisionTransformer(nn.Module):
    """Transformer on 144 patches of an aligned face: (B, in_channels, 112, 112) float -> (B, embedding_size).

    The net of Dosovitskiy et al. 2021 without a class token, as An et al. (Partial FC, 2022) train it: the output is
    made from all tokens, by two linear layers each followed by a batch norm. In training some of the tokens are left
    out and a learned one stands in their places at the end; and by stochastic depth (Huang et al. 2016) a branch of a
    block is left out for some of the images, those of block i with probability ``drop_path_rate`` i / (depth - 1).

    All draws of a pass are made before the blocks, from torch's generator of the device: a pass is a function of its
    seed, with recomputed blocks too. Autocast is the caller's; tokens are added up in float32, and from the last norm
    on everything runs in the precision of the weights.

    Args:
        name: a key of NETS.
        embedding_size: D, at least 1.
        dropout: probability on the last tokens, in [0, 1).
        gradient_checkpointing: recompute each block in the backward pass.
        in_channels: 3 for RGB.
        drop_path_rate: in [0, 1); None: what the name says.
        mask_ratio: share of the tokens left out in training, in [0, 1); None: what the name says.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_size: int = 512,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        mask_ratio: float | None = None,
    ) -> None:
        super().__init__()
        size, named_drop_path, named_mask = NETS[name]
        width, depth = SIZES[size]
        self.name = name
        self.in_channels = in_channels
        self.embedding_size = embedding_size
        self.gradient_checkpointing = gradient_checkpointing
        self.drop_path_rate = _rate(
            name, "drop_path_rate", named_drop_path if drop_path_rate is None else drop_path_rate
        )
        self.mask_ratio = _rate(name, "mask_ratio", named_mask if mask_ratio is None else mask_ratio)
        self.patch_embed = PatchEmbedding(in_channels, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, NUM_TOKENS, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        # DistributedDataParallel waits for ever for the gradient of a parameter that no pass uses.
        self.mask_token.requires_grad = self.mask_ratio > 0
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feature = nn.Sequential(
            nn.Linear(NUM_TOKENS * width, width, bias=False),
            nn.BatchNorm1d(width, eps=NORM_EPS),
            nn.Linear(width, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, eps=NORM_EPS),
        )
        # arcface_torch cuts these off at 2, a hundred standard deviations from the mean.
        nn.init.normal_(self.mask_token, std=INIT_STD)
        nn.init.normal_(self.pos_embed, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            x: (B, in_channels, 112, 112), normalised to about [-1, 1].

        Returns:
            (B, embedding_size) in the dtype of the weights, not normalised.

        Raises:
            ValueError: for any other shape.
        """
        check_face_batch(x, self.in_channels, self.name)
        tokens = self.patch_embed(x) + self.pos_embed
        kept = self._draw_kept(tokens) if self.training and self.mask_ratio > 0 else None
        scales = self._draw_branch_scales(tokens) if self.training and self.drop_path_rate > 0 else None
        if kept is not None:
            tokens = tokens.gather(1, kept)
        for index, block in enumerate(self.blocks):
            tokens = run_block(block, tokens, self.gradient_checkpointing, None if scales is None else scales[index])
        with full_precision(x):
            tokens = self.norm(tokens.to(self.norm.weight.dtype))
            if kept is not None:
                everywhere = self.mask_token.expand(len(tokens), NUM_TOKENS, -1)
                tokens = everywhere.scatter(1, kept, tokens)
            return cast(Tensor, self.feature(self.dropout(tokens.flatten(1))))

    def _draw_kept(self, tokens: Tensor) -> Tensor:
        """Which tokens stay, (B, kept, width) as ``gather`` wants it; each image has its own."""
        num_kept = int(NUM_TOKENS * (1 - self.mask_ratio))
        order = torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)
        return order[:, :num_kept, None].expand(-1, -1, tokens.shape[2])

    def _draw_branch_scales(self, tokens: Tensor) -> Tensor:
        """(depth, 2, B, 1, 1): 0 where a branch is left out for an image, else 1 / probability that it stays."""
        stays = 1 - torch.linspace(0, self.drop_path_rate, len(self.blocks), device=tokens.device).view(-1, 1, 1, 1, 1)
        draws = torch.rand(len(self.blocks), 2, len(tokens), 1, 1, device=tokens.device)
        return (draws < stays) / stays


def _rate(network: str, option: str, value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"backbone {network!r}: {option} is {value}, must be in [0, 1)")
    return value
