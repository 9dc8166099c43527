"""From a Config to everything a run is made of. Nothing is trained, logged or saved here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from backbones import build_backbone
from dataset import BatchStream, KnownClasses, Source, batches_per_epoch, build_loader
from losses import PartialFC, build_head
from losses.prototype_optimizer import PrototypeOptimizer
from training.fingerprint import take_fingerprint
from training.health import Health
from training.inputs import Inputs
from training.precision import LossScaler, resolve_precision
from training.run import Run
from utils.bad_records import BAD_RECORDS, BadRecords
from utils.config import Config
from utils.distributed import Ranks
from utils.images import to_model_input
from utils.schedule import Plan


def build_run(config: Config, ranks: Ranks, inputs: Inputs) -> Run:
    """Builds a run in its initial state; collective.

    The same seed gives the same weights on any number of ranks.

    Args:
        config: the run; None values that the data decides are filled in.
        ranks: from `start_ranks`.
        inputs: from `inspect_run`, without problems.

    Raises:
        ValueError: the inputs have problems.
    """
    if inputs.source is None or inputs.problems:
        raise ValueError("build_run: the preflight found problems: " + "; ".join(inputs.problems))
    source = inputs.source
    precision = cast('Literal["fp32", "bf16", "fp16"]', resolve_precision(config.precision, ranks.device))
    config = replace(config, num_classes=source.num_classes, num_image=len(source), precision=precision)
    global_batch_size = min(config.batch_size * ranks.world_size, len(source))
    plan = Plan(
        batches_per_epoch(len(source), config.batch_size * ranks.world_size),
        config.num_epoch,
        global_batch_size,
        config.gradient_acc,
    )
    backbone = _build_backbone(config, source).to(ranks.device)
    if config.channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        backbone.compile()  # in place: the names of the weights stay as they are
    fc = PartialFC(
        build_head(config.head, **config.head_options),
        config.embedding_size,
        source.num_classes,
        sample_rate=config.sample_rate,
        sampling_correction=config.sampling_correction,
        regularizers=config.regularizers,
        interclass_filter=config.interclass_filter,
        class_counts=torch.from_numpy(KnownClasses(source, config.bad_records).class_counts()),
        memory_budget=None if config.memory_budget is None else config.memory_budget << 20,
        seed=config.seed,
    ).to(ranks.device)
    optimizer, fc_optimizer = _build_optimizers(config, backbone, fc)
    run = Run(
        config, ranks, source, inputs.scored, plan, backbone, backbone, fc, optimizer, fc_optimizer,
        LossScaler(is_active=config.precision == "fp16"),
        health=Health(config.loss_spike),
        bad_records=BadRecords(
            config.max_bad_records,
            Path(config.output) / BAD_RECORDS if config.output else None,
            is_main=ranks.is_main,
            resume=config.resume,
        ),
    )  # fmt: skip
    run.fingerprint = take_fingerprint(run)
    if ranks.world_size > 1:
        run.model = _replicate(run)
    return run


def build_stream(run: Run, first_step: int) -> BatchStream:
    """The run's batches from `first_step` to its end."""
    config, ranks = run.config, run.ranks
    return build_loader(
        run.source,
        seed=config.seed,
        batch_size=config.batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        first_batch=run.plan.first_batch(first_step),
        last_batch=run.plan.last_batch,
        num_workers=config.num_workers,
        augmentation=config.augmentation,
        sampler=config.sampler,
        images_per_identity=config.images_per_identity,
        bad_records=config.bad_records,
        carry_failures=True,
        pin_memory=ranks.device.type == "cuda",
    )


def _build_backbone(config: Config, source: Source) -> nn.Module:
    torch.manual_seed(config.seed)
    return build_backbone(
        config.network,
        embedding_size=config.embedding_size,
        dropout=config.dropout,
        gradient_checkpointing=config.gradient_checkpointing,
        in_channels=source.image_format.channels,
        **config.network_options,
    )


def _build_optimizers(
    config: Config, backbone: nn.Module, fc: PartialFC
) -> tuple[torch.optim.Optimizer, PrototypeOptimizer]:
    """Weight decay acts on all weights, batch normalisation and biases included, as in arcface_torch."""
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            backbone.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(backbone.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    fc_optimizer = fc.make_optimizer(
        config.optimizer,
        lr=config.lr if config.head_lr is None else config.head_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay if config.head_weight_decay is None else config.head_weight_decay,
    )
    return optimizer, fc_optimizer


def _replicate(run: Run) -> nn.Module:
    """Wraps the backbone so that its gradients are averaged over the ranks, with buckets that stay as they are.

    After its first backward pass DistributedDataParallel sorts the parameters into buckets anew, by the order in which
    gradients arrived. Another layout sums in another order, so a resumed run would differ from an uninterrupted one in
    the last bits. One pass on a blank batch before the first step settles the layout for both; it also
    meets a lack of memory before the data is touched.
    """
    devices = [run.ranks.local_rank] if run.ranks.device.type == "cuda" else None
    model = DistributedDataParallel(run.backbone, device_ids=devices, forward_sync_buffers=False)
    buffers = {name: buffer.clone() for name, buffer in run.backbone.named_buffers()}
    blank = torch.zeros(run.config.batch_size, *run.source.image_format.shape, dtype=torch.uint8)
    with autocast(run):
        images = to_model_input(
            blank.to(run.ranks.device), run.source.image_format, channels_last=run.config.channels_last
        )
        embeddings = model(images)
    embeddings.sum().backward()
    run.optimizer.zero_grad(set_to_none=True)
    for name, buffer in run.backbone.named_buffers():
        buffer.copy_(buffers[name])
    return model


def autocast(run: Run) -> torch.autocast:
    """The backbone's precision; PartialFC looks at it too, and computes its own sums in float32."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[run.config.precision]
    return torch.autocast(run.ranks.device.type, dtype=dtype, enabled=run.config.precision != "fp32")
