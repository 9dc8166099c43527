"""Running one block with gradient checkpointing, and the input check all face nets share; no layer is defined here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FACE_SIZE = 112


@contextmanager
def lent_buffers(block: nn.Module) -> Iterator[None]:
    """Let ``block`` write to copies of its buffers (running statistics, counters); afterwards it has its own again.

    Copies, because a batch norm without statistics would save other tensors for the backward pass, which
    torch.utils.checkpoint refuses.
    """
    own = [(module, name, buffer) for module in block.modules() for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in own:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in own:
            module._buffers[name] = buffer


def run_block(block: nn.Module, x: Tensor, recompute: bool, *others: Tensor | None) -> Tensor:
    """Apply ``block`` to ``x``; with ``recompute`` its activations are dropped and computed again in the backward pass.

    The gradients are those of the plain call. A batch norm would see its batch twice, once more during the
    backward pass, and move its running statistics twice: the second time it writes to copies.

    Args:
        block: a module without randomness of its own (its random state is not restored for the second pass): what is
            drawn for it comes with ``others``.
        x: the block's input, any shape.
        recompute: trade about a third more computing for the memory of the block's activations.
        others: the block's further inputs; kept, not computed again.
    """
    if not (recompute and block.training and torch.is_grad_enabled()):
        return block(x, *others)
    if torch.compiler.is_compiling():
        # The compiler moves buffer updates out of the recomputed region by itself, and refuses context_fn here.
        return checkpoint(block, x, *others, use_reentrant=False, preserve_rng_state=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), lent_buffers(block)

    return checkpoint(block, x, *others, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def check_face_batch(x: Tensor, in_channels: int, network: str) -> None:
    """Refuse an input whose shape the net cannot take.

    Args:
        x: the batch, to be (B, in_channels, 112, 112).
        in_channels: channels of the first convolution.
        network: the net's name for the message.

    Raises:
        ValueError: with the shape that came and the one that is needed.
    """
    if x.dim() != 4 or x.shape[1] != in_channels or x.shape[2] != FACE_SIZE or x.shape[3] != FACE_SIZE:
        raise ValueError(
            f"{network}: got an input of shape {tuple(x.shape)}, needs (B, {in_channels}, {FACE_SIZE}, {FACE_SIZE}): "
            "align and resize the faces to 112 x 112, put channels second, or build the net with another in_channels"
        )


def check_batch(x: Tensor, in_channels: int, image_size: int, network: str) -> None:
    """Refuse an input that a net for square images of any kind cannot take.

    Args:
        x: (B, in_channels, image_size, image_size) as it should be.
        in_channels: channels of the first convolution.
        image_size: edge in pixels.
        network: the net's name for the message.

    Raises:
        ValueError: with the shape that came and the one that is needed.
    """
    needed = (in_channels, image_size, image_size)
    if x.dim() != 4 or tuple(x.shape[1:]) != needed:
        raise ValueError(
            f"{network}: got an input of shape {tuple(x.shape)}, needs (B, {', '.join(map(str, needed))}): resize the "
            "images and put channels second, or build the net with another in_channels or image_size"
        )


@contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Switch a surrounding autocast off; without one nothing is entered, which keeps exported graphs free of it."""
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            yield
    else:
        yield
