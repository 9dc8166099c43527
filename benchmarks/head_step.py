"""One step of a classification layer - forward, backward, optimizer - ours, arcface_torch's, or its products alone.

Usage: python -m benchmarks.head_step ours|arcface_torch --classes 100000 [--rate 1] [--steps 3] [--arcface-torch DIR]

Runs the steps in a process of their own and prints one line of JSON: what the process held after its imports and at
its peak, the size of weights and gradient, seconds and losses. Tables are made in benchmarks/head.py and growth.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import as_in_training, peak_bytes
from benchmarks.peer import ArcFaceTorch, add_peer_option, find_peer
from losses import PartialFC, build_head

# So small a rate that a few steps on the same batches do not bring the loss to 0, where nothing is left to compare.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
OURS, PEER, PRODUCTS = "ours", "arcface_torch", "three products alone"
_NUM_BATCHES = 4
# arcface_torch's CombinedMarginLoss (s, m1, m2, m3) and the same margin as options of our heads
_MARGINS = {
    "cosface": ((64.0, 1.0, 0.0, 0.4), {"scale": 64.0, "margin": 0.4}),
    "arcface": ((64.0, 1.0, 0.5, 0.0), {"scale": 64.0, "margin": 0.5}),
}
PEER_HEADS = tuple(_MARGINS)


@dataclass(frozen=True)
class Setting:
    """What one step is given.

    Attributes:
        classes: C.
        rate: share of the classes that take part.
        batch: N.
        embedding_size: D.
        head: a name in the registry.
    """

    classes: int
    rate: float = 1.0
    batch: int = 128
    embedding_size: int = 512
    head: str = "cosface"

    @property
    def active_classes(self) -> int:
        """Classes that take part in a step."""
        return min(self.classes, max(round(self.rate * self.classes), self.batch))

    @property
    def weight_bytes(self) -> int:
        """Of the prototypes in float32; the momentum takes as much again."""
        return self.classes * self.embedding_size * 4

    def arguments(self) -> list[str]:
        """The command line of a child that measures it."""
        pairs = {"classes": self.classes, "rate": self.rate, "batch": self.batch, "dim": self.embedding_size}
        return [*(f"--{name}={value}" for name, value in pairs.items()), f"--head={self.head}"]

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """A few fixed batches of (embeddings, labels), the same for every contestant."""
        generator = torch.Generator().manual_seed(0)
        return [
            (
                torch.randn(self.batch, self.embedding_size, generator=generator).requires_grad_(),
                torch.randint(self.classes, (self.batch,), generator=generator),
            )
            for _ in range(_NUM_BATCHES)
        ]


class Layer:
    """A classification layer with its optimizer; ``step`` trains on the next batch and returns the loss, 0-dim.

    Args:
        setting: sizes and head.
        loss: (embeddings, labels, index of the step) -> loss.
        optimizer: has step() and zero_grad().
        weight: (C, D) prototypes.
        gradients: the gradients that wait for the optimizer.
    """

    def __init__(
        self, setting: Setting, loss: Callable[[Tensor, Tensor, int], Tensor], optimizer: Any, weight: Tensor,
        gradients: Callable[[], list[Tensor]],
    ) -> None:  # fmt: skip
        self.loss, self.optimizer, self.weight, self.gradients = loss, optimizer, weight, gradients
        self.batches, self.steps_done = setting.batches(), 0

    def step(self) -> Tensor:
        """Forward, backward, optimizer."""
        loss = self._backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        return loss

    def gradient_bytes(self) -> int:
        """Memory of the prototype gradient between backward and optimizer; moves no weight of a plain layer."""
        self._backward()
        size = sum(gradient.numel() * gradient.element_size() for gradient in self.gradients())
        self.optimizer.zero_grad()
        return size

    def _backward(self) -> Tensor:
        embeddings, labels = self.batches[self.steps_done % _NUM_BATCHES]
        embeddings.grad = None
        loss = self.loss(embeddings, labels, self.steps_done)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def ours(setting: Setting, head_options: dict[str, Any] | None = None) -> Layer:
    """PartialFC with its own SGD; the margin is the peer's where the peer has the head."""
    options = _MARGINS[setting.head][1] if head_options is None and setting.head in _MARGINS else head_options or {}
    fc = PartialFC(
        build_head(setting.head, **options), setting.embedding_size, setting.classes, sample_rate=setting.rate,
        class_counts=torch.full((setting.classes,), 10),
    )  # fmt: skip
    optimizer = fc.make_optimizer("sgd", LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def loss(embeddings: Tensor, labels: Tensor, step: int) -> Tensor:
        result: Tensor = fc(embeddings, labels, step=step)
        return result

    return Layer(setting, loss, optimizer, fc.weight.detach(), lambda: [row.gradient for row in fc.row_gradients()])


def theirs(peer: ArcFaceTorch, setting: Setting) -> Layer:
    """PartialFC_V2 with torch's SGD, as its train_v2.py pairs them; only inside ``peer.running()``."""
    margin = peer.module("losses").CombinedMarginLoss(*_MARGINS[setting.head][0])
    kind = peer.module("partial_fc_v2").PartialFC_V2
    fc = kind(margin, setting.embedding_size, setting.classes, setting.rate, False)
    optimizer = torch.optim.SGD(fc.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def loss(embeddings: Tensor, labels: Tensor, _: int) -> Tensor:
        result: Tensor = fc(embeddings, labels)
        return result

    return Layer(setting, loss, optimizer, fc.weight.detach(), lambda: [fc.weight.grad])


def products(setting: Setting) -> Callable[[], None]:
    """The three matrix products that no exact step can do without, into buffers that exist: logits, dX, dW."""
    size, dim, active = setting.batch, setting.embedding_size, setting.active_classes
    embeddings, weight, slope = torch.randn(size, dim), torch.randn(active, dim), torch.randn(size, active)
    logits, g_embeddings, g_weight = torch.empty_like(slope), torch.empty_like(embeddings), torch.empty_like(weight)

    def run() -> None:
        torch.mm(embeddings, weight.t(), out=logits)
        torch.mm(slope, weight, out=g_embeddings)
        torch.mm(slope.t(), embeddings, out=g_weight)

    return run


def timed(run: Callable[[], Any], steps: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(steps):
        run()
    return (time.perf_counter() - start) / steps


def status_bytes(field: str) -> int:
    """VmRSS (held now) or VmHWM (at most so far) of this process.

    getrusage's peak is inherited from the process that started this one, which may have held more; the kernel's own
    mark is not. Where there is no /proc, getrusage is what there is.
    """
    path = Path("/proc/self/status")
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return peak_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one contestant in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.head_step", description="one contestant, as JSON")
    parser.add_argument("contestant", choices=(OURS, PEER))
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--head", default="cosface")
    parser.add_argument("--steps", type=int, default=3, help="after one that does not count (default: %(default)s)")
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    setting = Setting(options.classes, options.rate, options.batch, options.dim, options.head)
    peer, reason = find_peer(options.arcface_torch) if options.contestant == PEER else (None, "")
    if reason:
        parser.error(reason)
    if peer is None:
        as_in_training()  # each as it ships
    with nullcontext() if peer is None else peer.running():
        if peer is not None:
            peer.module("partial_fc_v2")
        imported = status_bytes("VmRSS")
        layer = ours(setting) if peer is None else theirs(peer, setting)
        losses = [float(layer.step())]
        seconds: list[float] = []
        for _ in range(options.steps):
            start = time.perf_counter()
            losses.append(float(layer.step()))
            seconds.append(time.perf_counter() - start)
        peak = status_bytes("VmHWM")
        found = {
            "import_bytes": imported, "peak_bytes": peak, "weight_bytes": setting.weight_bytes,
            "extra_bytes": peak - imported - 2 * setting.weight_bytes, "gradient_bytes": layer.gradient_bytes(),
            "seconds": seconds, "losses": losses,
        }  # fmt: skip
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
