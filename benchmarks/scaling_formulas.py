"""What a training step costs on any number of ranks: FLOPs, bytes, collectives, seconds. Formulas only; nothing runs.

Counts follow losses/ and training/step.py as they are written. docs/scaling.md explains and judges them; `python -m
benchmarks.scaling_model` prints what follows from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones import backbone_info, build_backbone
from losses.sampling import draws_needed
from losses.sharding import class_block

FLOAT = 4  # bytes; embeddings, prototypes and logits are float32 whatever the backbone's precision
SYNC = 7  # numbers that training/step.py agrees on per step

# Passes over the (N, classes) logits of a head with a plain scale, as losses/scores.py, kernels.py and chunks.py write
# them one operation after the other; on CPUs they stay in the cache, on GPUs each is memory traffic.
FORWARD_PASSES = 11
BACKWARD_KEPT_PASSES = 6
BACKWARD_RECOMPUTED_PASSES = 17
# Passes over the active prototypes (rows, D) in reduced precision: norm, rounding twice, products, the gradient and its
# copy, its projection and its norm; and SGD with momentum, fused.
ROW_PASSES, SGD_PASSES = 14, 5
SAMPLED_ROW_PASSES = 8  # rows read for the step; momentum read, weight and momentum written back by the update
# A random choice of classes: passes over the draws and their sort, or, where half of the classes take part, over all.
DRAW_BYTES, CHOICE_BYTES = 250, 40


@dataclass(frozen=True)
class Setting:
    """One training run, as far as its speed depends on it.

    Attributes:
        world_size: ranks.
        num_classes: over all ranks.
        batch_size: images per rank.
        sample_rate: share of the classes in a step.
        embedding_size: D.
        sub_centers: prototypes per class.
        memory_budget: bytes of logits a rank keeps for the backward pass.
    """

    world_size: int
    num_classes: int
    batch_size: int = 128
    sample_rate: float = 1.0
    embedding_size: int = 512
    sub_centers: int = 1
    memory_budget: int = 256 << 20

    @property
    def global_batch(self) -> int:
        """N."""
        return self.world_size * self.batch_size

    @property
    def local_classes(self) -> int:
        """Classes of the rank that has most."""
        start, stop = class_block(self.num_classes, 0, self.world_size)
        return stop - start

    @property
    def active_classes(self) -> int:
        """Classes of a rank in a step: the sampled share, but room for a whole batch of positives and a negative."""
        size = self.local_classes
        return max(round(self.sample_rate * size), min(self.global_batch + 1, size))

    @property
    def is_sampled(self) -> bool:
        """Whether any class is left out."""
        return self.active_classes < self.local_classes

    @property
    def rows(self) -> int:
        """Active prototypes of a rank."""
        return self.active_classes * self.sub_centers

    @property
    def kept_share(self) -> float:
        """Share of the logits that the budget keeps, so that the backward pass need not compute them again."""
        return min(1.0, self.memory_budget / max(1, FLOAT * self.global_batch * self.rows))


@dataclass(frozen=True)
class Backbone:
    """What a net costs: `flops` of one image's forward pass (2 per multiply-add), and its number of parameters."""

    flops: float
    parameters: int


@dataclass(frozen=True)
class Collective:
    """One collective of a step: "gather" and "scatter" name the size over all ranks, "reduce" the one tensor's."""

    name: str
    kind: str
    size: int

    def sent(self, world_size: int) -> float:
        """Bytes that a rank sends in a ring."""
        return (2 if self.kind == "reduce" else 1) * self.size * (world_size - 1) / world_size


def backbone_cost(network: str, embedding_size: int = 512) -> Backbone:
    """Counts a net of the registry on one image."""
    net = build_backbone(network, embedding_size=embedding_size).eval()
    image = torch.zeros(1, 3, *backbone_info(net).image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image)
    return Backbone(counter.get_total_flops(), sum(parameter.numel() for parameter in net.parameters()))


def head_flops(setting: Setting) -> float:
    """FLOPs of the head's products on one rank: logits, two gradients, and the logits again that were not kept."""
    product = 2.0 * setting.global_batch * setting.embedding_size * setting.rows
    return product * (3 + (1 - setting.kept_share))


def head_traffic(setting: Setting) -> dict[str, float]:
    """Bytes that the head of one rank moves through memory in a step, as it is written, nothing fused."""
    kept = setting.kept_share
    passes = FORWARD_PASSES + kept * BACKWARD_KEPT_PASSES + (1 - kept) * BACKWARD_RECOMPUTED_PASSES
    row = FLOAT * setting.rows * setting.embedding_size
    return {
        "logits": passes * FLOAT * setting.global_batch * setting.rows,
        "rows": (ROW_PASSES + SGD_PASSES + (SAMPLED_ROW_PASSES if setting.is_sampled else 0)) * row,
        "sampling": sampling_traffic(setting),
    }


def sampling_traffic(setting: Setting) -> float:
    """Bytes of choosing a rank's classes."""
    draws = draws_needed(setting.active_classes, setting.local_classes) if setting.is_sampled else 0
    return CHOICE_BYTES * setting.local_classes if draws is None else DRAW_BYTES * draws


def head_memory(setting: Setting) -> dict[str, float]:
    """Bytes of the head on one rank, SGD with momentum: what stays, and what a step adds."""
    shard = FLOAT * setting.local_classes * setting.sub_centers * setting.embedding_size
    active = FLOAT * setting.rows * setting.embedding_size
    logits = FLOAT * setting.global_batch * setting.rows
    return {
        "weights": shard,
        "momentum": shard,
        "gradient": active,
        "copy of sampled rows": active if setting.is_sampled else 0,
        "kept logits": min(setting.memory_budget, logits),
        # packed and contiguous embeddings, unit vectors, own prototypes; backward: two gradients
        "gathered batch": 6 * FLOAT * setting.global_batch * setting.embedding_size,
    }


def collectives(setting: Setting, parameters: int) -> list[Collective]:
    """All that the ranks exchange in a step of a head without context; none of it on a single rank."""
    if setting.world_size == 1:
        return []
    batch, width = setting.global_batch, setting.embedding_size
    return [
        Collective("embeddings and labels", "gather", FLOAT * batch * (width + 2)),
        Collective("target, prototype norm", "reduce", FLOAT * batch * 2),
        Collective("hardest, hardest cosine, largest logit", "reduce", FLOAT * batch * 3),
        Collective("sum, two counts of ties", "reduce", FLOAT * batch * 3),
        Collective("embedding gradient", "scatter", FLOAT * batch * width),
        Collective("agreement on the step", "reduce", FLOAT * SYNC),
        Collective("backbone gradient", "reduce", FLOAT * parameters),
    ]


@dataclass(frozen=True)
class Hardware:
    """A cluster in a few numbers, all of them what is reached, not what a data sheet promises.

    Attributes:
        name: how tables call it.
        backbone_rate: FLOP/s in the backbone's forward and backward pass, on one device.
        product_rate: FLOP/s in the head's products.
        traffic_rate: bytes/s of elementwise passes.
        node_rate: bytes/s that a rank sends within a node.
        network_rate: bytes/s that a device's own network card sends. A ring passes through all devices of a node before
            it leaves it, so that a card carries only 1 / node_size of what a rank sends.
        latency: seconds a level of the tree takes that small reductions go up and down.
        hop: seconds from one rank to the next in a ring, on average; gathering and scattering take one a rank.
        node_size: devices of a node.
        memory: bytes of a device.
        overlap: share of the backbone's time behind which its all-reduce hides.
    """

    name: str
    backbone_rate: float
    product_rate: float
    traffic_rate: float
    node_rate: float
    network_rate: float
    latency: float
    hop: float
    node_size: int
    memory: float
    overlap: float = 0.5


# Not measured here: data sheets (989 TFLOP/s bf16, 4.8 TB/s, 450 GB/s NVLink, 400 Gb/s a device) times the share that
# such work usually reaches. benchmarks/gpu.py measures the first three.
H200 = Hardware("8 x H200 a node, 400 Gb/s each", 250e12, 590e12, 3.6e12, 300e9, 40e9, 15e-6, 2e-6, 8, 141e9)


def step_seconds(setting: Setting, backbone: Backbone, hardware: Hardware) -> dict[str, float]:
    """Seconds of a step by part; they add up, since nothing but the backbone's all-reduce is overlapped."""
    traffic = head_traffic(setting)
    compute = 3 * backbone.flops * setting.batch_size / hardware.backbone_rate
    exchange = {
        item.name: exchange_seconds(item, setting.world_size, hardware)
        for item in collectives(setting, backbone.parameters)
    }
    replicas = exchange.pop("backbone gradient", 0.0)
    return {
        "backbone": compute,
        "exposed all-reduce": max(0.0, replicas - hardware.overlap * compute),
        "head products": head_flops(setting) / hardware.product_rate,
        "head logits": traffic["logits"] / hardware.traffic_rate,
        "rows and update": traffic["rows"] / hardware.traffic_rate,
        "sampling": traffic["sampling"] / hardware.traffic_rate,
        "head collectives": sum(exchange.values()),
    }


def exchange_seconds(item: Collective, world_size: int, hardware: Hardware) -> float:
    """Seconds of one collective that nothing hides."""
    rate = hardware.node_rate
    if world_size > hardware.node_size:
        rate = min(rate, hardware.node_size * hardware.network_rate)
    if item.kind == "reduce":
        waiting = 2 * math.ceil(math.log2(world_size)) * hardware.latency
    else:
        waiting = (world_size - 1) * hardware.hop
    return item.sent(world_size) / rate + waiting


def device_bytes(setting: Setting, backbone: Backbone) -> float:
    """Memory of a device: head, backbone with gradient and momentum; activations (about 70 MB an image) not counted."""
    return sum(head_memory(setting).values()) + 3 * FLOAT * backbone.parameters
