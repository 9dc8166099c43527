"""What benchmarks/gpu.py measures: steps of layers and nets on one device, with times and peak memory. No tables."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.backbones import Variant, training_step
from benchmarks.head_step import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from benchmarks.peer import ArcFaceTorch
from losses import PartialFC, build_head

WIDTH = 512


@dataclass(frozen=True)
class Cost:
    """Seconds of a step (median), and the most memory it held, of which weights and momentum take `lasting`."""

    seconds: float
    peak_bytes: int
    lasting: int


def median_seconds(run: Callable[[], Any], device: torch.device, steps: int, warm_up: int = 2) -> float:
    """Median of single calls, each to the end of what it started on the device."""
    seconds: list[float] = []
    for step in range(warm_up + steps):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        if step >= warm_up:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def wait(device: torch.device) -> None:
    """Until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Before a contestant: gives back what the last one held, and forgets its peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def head_cost(
    num_classes: int,
    batch: int,
    device: torch.device,
    steps: int,
    *,
    is_reduced: bool = False,
    rate: float = 1.0,
    peer: ArcFaceTorch | None = None,
) -> Cost | None:
    """One layer with SGD, ours or the peer's; None where it does not fit into the memory."""  # fmt: skip
    release(device)
    try:
        with drawn_on(device):
            run = their_layer(peer, num_classes, batch, device, rate) if peer else our_layer(
                num_classes, batch, device, rate, is_reduced
            )  # fmt: skip
        seconds = median_seconds(run, device, steps)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        found = Cost(seconds, peak, 2 * num_classes * WIDTH * 4)
    except torch.OutOfMemoryError:
        found = None
    return found


def our_layer(num_classes: int, batch: int, device: torch.device, rate: float, is_reduced: bool) -> Callable[[], None]:
    """A step of PartialFC with CosFace and its own SGD; `is_reduced`: bf16 products, as under autocast."""
    fc = PartialFC(build_head("cosface"), WIDTH, num_classes, sample_rate=rate).to(device)
    optimizer = fc.make_optimizer("sgd", LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    embeddings, labels = batch_of(num_classes, batch, device)
    done = 0

    def step() -> None:
        nonlocal done
        embeddings.grad = None
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_reduced):
            loss = fc(embeddings, labels, step=done)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        done += 1

    return step


def their_layer(
    peer: ArcFaceTorch, num_classes: int, batch: int, device: torch.device, rate: float
) -> Callable[[], None]:
    """A step of PartialFC_V2 with CosFace and torch's SGD; fp32, as train_v2.py builds it whatever its fp16 says."""
    margin = peer.module("losses").CombinedMarginLoss(64, 1.0, 0.0, 0.4)
    fc = peer.module("partial_fc_v2").PartialFC_V2(margin, WIDTH, num_classes, rate, False).to(device)
    optimizer = torch.optim.SGD(fc.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    embeddings, labels = batch_of(num_classes, batch, device)

    def step() -> None:
        embeddings.grad = None
        torch.autograd.backward(fc(embeddings, labels))
        optimizer.step()
        optimizer.zero_grad()

    return step


def batch_of(num_classes: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random embeddings and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (batch,), generator=generator)
    return torch.randn(batch, WIDTH, generator=generator).to(device).requires_grad_(), labels.to(device)


@contextmanager
def drawn_on(device: torch.device) -> Iterator[None]:
    """Initial prototypes are drawn on the device: ten million on a CPU would take longer than all the steps."""

    def ours(start: int, stop: int, width: int, std: float, *_: Any) -> Tensor:
        return torch.randn(stop - start, width, device=device).mul_(std)

    def theirs(_: float, std: float, size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, device=device).mul_(std)

    with mock.patch("losses.partial_fc.initial_prototypes", ours), mock.patch.object(torch, "normal", theirs):
        yield


def product_rate(num_classes: int, batch: int, device: torch.device, steps: int, dtype: torch.dtype) -> float:
    """FLOP/s of the three products that no exact step can do without, float32 results, each as one call."""
    release(device)
    embeddings, weight = torch.randn(batch, WIDTH, device=device), torch.randn(num_classes, WIDTH, device=device)
    slope = torch.randn(batch, num_classes, device=device)
    x, w, g = (tensor.to(dtype) for tensor in (embeddings, weight, slope))
    more: dict[str, Any] = {"out_dtype": torch.float32} if dtype != torch.float32 and device.type == "cuda" else {}

    def run() -> None:
        torch.mm(x, w.t(), **more)
        torch.mm(g, w, **more)
        torch.mm(g.t(), x, **more)

    return 6.0 * batch * WIDTH * num_classes / median_seconds(run, device, steps)


def net_speed(network: str, variant: Variant, batch: int, device: torch.device, steps: int) -> float:
    """Images per second of our net: forward, backward, SGD."""
    release(device)
    return batch / median_seconds(training_step(network, variant, device, batch), device, steps)


def their_net_speed(peer: ArcFaceTorch, network: str, batch: int, device: torch.device, steps: int) -> float:
    """Images per second of arcface_torch's net on its fp16 path: its own autocast, GradScaler, clipping, SGD."""
    release(device)
    is_half = device.type == "cuda"
    net = peer.module("backbones").get_model(network, dropout=0.0, fp16=is_half, num_features=WIDTH).to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    scaler = torch.amp.GradScaler(device.type, growth_interval=100, enabled=is_half)
    images = torch.rand(batch, 3, 112, 112, device=device) * 2 - 1
    gradient = torch.randn(batch, WIDTH, device=device) / batch

    def step() -> None:
        # A loss whose gradient is `gradient`, so that the scaler has something to scale.
        torch.autograd.backward(scaler.scale((net(images) * gradient).sum()))
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return batch / median_seconds(step, device, steps)


def largest(rate: float, batch: int, device: torch.device, memory: float) -> int:
    """Most identities, to 2 % of what the memory could hold at best, whose layer takes a step; bf16 products."""
    bytes_each = WIDTH * 4 * (2 + rate * (1 if rate == 1 else 2))
    limit = int(memory / bytes_each)
    for share in range(100, 10, -2):
        num_classes = limit * share // 100
        if head_cost(num_classes, batch, device, 1, is_reduced=True, rate=rate) is not None:
            return num_classes
    return 0
