"""What a run is made of, as one object that all parts of training are handed. Builds nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch
from torch import nn

from dataset import Source
from losses import PartialFC
from losses.prototype_optimizer import PrototypeOptimizer
from training.health import Health
from training.precision import LossScaler
from training.scored_data import Scored
from utils.bad_records import BadRecords
from utils.checkpoint_saver import CheckpointSaver
from utils.config import Config
from utils.distributed import Ranks
from utils.schedule import Plan, learning_rate, ramp


@dataclass
class Run:
    """The parts of one run on this rank.

    Attributes:
        config: with num_classes, num_image and output filled in.
        ranks: this process among all.
        source: the training data.
        scored: the verification sets, or the test images of a classification.
        plan: how long the run is.
        backbone: the bare module; what is verified and saved.
        model: what is called in training: the backbone, wrapped where there are several ranks.
        fc: this rank's prototypes with head; never wrapped, its gradients are already those of the global mean.
        optimizer: of the backbone.
        fc_optimizer: of the prototypes and the head.
        scaler: loss scale; 1 for ever where the precision is not fp16.
        best_score: highest mean accuracy so far, None before the first verification.
        last_score: steps done and mean accuracy of the last verification.
        saver: writes checkpoints while steps go on.
        health: what the run remembers of skipped steps and of its recent losses.
        bad_records: images that could not be read, the same set on all ranks.
        fingerprint: code, config, data and environment, for checkpoints and report.
        claim: what keeps other runs out of the run's folder.
    """

    config: Config
    ranks: Ranks
    source: Source
    scored: Scored
    plan: Plan
    backbone: nn.Module
    model: nn.Module
    fc: PartialFC
    optimizer: torch.optim.Optimizer
    fc_optimizer: PrototypeOptimizer
    scaler: LossScaler
    best_score: float | None = None
    last_score: tuple[int, float] | None = None
    saver: CheckpointSaver = field(default_factory=CheckpointSaver)
    health: Health = field(default_factory=Health)
    bad_records: BadRecords = field(default_factory=BadRecords)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    claim: BinaryIO | None = None

    def set_schedule(self, step: int) -> float:
        """Puts learning rates and margin where `step` wants them; returns the backbone's rate."""
        config, plan = self.config, self.plan
        factor = learning_rate(
            step,
            base=1.0,
            total_steps=plan.total_steps,
            warmup_steps=plan.steps(config.warmup_epoch),
            schedule=config.lr_schedule,
            power=config.lr_power,
            milestones=[plan.steps(epoch) for epoch in config.lr_milestones],
            gamma=config.lr_gamma,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * factor
        for group in self.fc_optimizer.param_groups:
            group["lr"] = (config.lr if config.head_lr is None else config.head_lr) * factor
        self.fc.margin_factor = ramp(step, config.margin_warmup_epochs * plan.steps_per_epoch)
        return config.lr * factor
