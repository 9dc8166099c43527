"""Checks that need more than one key, or the data. Keys alone: config_keys.py; heads and nets: config_names.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.config_keys import Config
from utils.config_names import check_head, check_network, unknown_name, value_of

# Training data that has no folder in which verification sets could lie.
WITHOUT_FOLDER = (
    "synthetic", "digits", "mnist", "cifar10", "cifar100", "svhn", "imagenet32", "imagenet64", "cub200", "folder",
    "market1501", "dukemtmc",
)  # fmt: skip


def check_together(
    values: dict[str, Any],
    origins: Mapping[str, str],
    failed: frozenset[str],
    *,
    heads: Mapping[str, type] | None,
    backbones: Mapping[str, Any] | None,
    regularizers: Mapping[str, Any] | None,
) -> list[str]:
    """Checks what keys mean together; options of head and network in `values` become their types in place.

    Args:
        values: the keys that were set and are right by themselves.
        origins: every key -> what to call the place that set it.
        failed: the keys that were set and are wrong by themselves; nothing is concluded from their defaults.
        heads: name -> head class, or None to leave heads unchecked.
        backbones: name -> what builds the net, or None to leave networks unchecked.
        regularizers: the known names, or None.

    Returns:
        A line for each problem.
    """
    problems = [] if failed & {"rec", "val_dir"} else _check_data(values, origins)
    problems += [] if "num_epoch" in failed else _check_epochs(values, origins)
    problems += [] if failed & {"task", "test", "val_targets"} else _check_task(values, origins)
    problems += [] if failed & {"num_epoch", "lr_schedule", "lr_milestones"} else _check_schedule(values, origins)
    if not failed & {"batch_size", "sampler", "images_per_identity"}:
        problems += _check_sampler(values, origins)
    if value_of(values, "init_class_map") is not None and value_of(values, "init_head_from") is None:
        problems.append(
            f"{origins['init_class_map']}: init_class_map is set, but init_head_from is not. Set it to the run whose "
            "prototypes to take."
        )
    if backbones is not None and not failed & {"network", "network_options"}:
        problems += check_network(values, origins, backbones)
    for name in value_of(values, "regularizers"):
        if regularizers is not None and name not in regularizers:
            problems.append(f"{origins['regularizers']}: {unknown_name('regularizer', name, regularizers)}")
    if heads is not None and not failed & {"head", "head_options"}:
        problems += check_head(values, origins, heads)
    return problems


def missing_data_message(config: Config) -> str | None:
    """Returns what to do about training data that is not on disk, or None where it is (or needs no folder)."""
    location = Path(config.rec)
    if _is_no_folder(config.rec) or location.exists():
        return None
    return (
        f"rec = {config.rec!r} (from {config.source} or the command line), but there is no {location.absolute()}. "
        "Put the data there (train.rec and train.idx, or one folder of images per identity), or name its place with "
        "rec=/path/to/data. "
        "An image folder is packed by `python -m tools.records pack`."
    )


def _is_no_folder(rec: str) -> bool:
    kind, separator, _ = rec.partition(":")
    return kind in WITHOUT_FOLDER and bool(separator or kind in ("synthetic", "digits"))


def _check_sampler(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    batch_size, per_identity = value_of(values, "batch_size"), value_of(values, "images_per_identity")
    if value_of(values, "sampler") != "identities" or batch_size % per_identity == 0:
        return []
    return [
        f"{origins['batch_size']}: batch_size = {batch_size} is no multiple of images_per_identity = {per_identity}: "
        "groups of one identity would be cut between ranks. Change one of them."
    ]


def _check_data(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    rec = value_of(values, "rec")
    if not rec:
        return [f"{origins['rec']}: rec is not set. Name the training data, as in rec=/path/to/faces."]
    if value_of(values, "val_targets") and value_of(values, "val_dir") is None and _is_no_folder(rec):
        where = origins["val_targets"]
        return [f"{where}: val_targets are set, but rec = {rec!r} is no folder to find them in. Set val_dir to theirs."]
    return []


def _check_epochs(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    num_epoch = value_of(values, "num_epoch")
    return [
        f"{origins[name]}: {name} = {values[name]:g} exceeds num_epoch = {num_epoch}. Lower it, or train longer."
        for name in ("warmup_epoch", "margin_warmup_epochs")
        if name in values and values[name] > num_epoch
    ]


def _check_task(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """Pairs score faces, test images a classification."""
    task = value_of(values, "task")
    if task == "faces" and value_of(values, "test") is not None:
        where = origins["test"]
        return [f"{where}: test = {values['test']!r} belongs to task='classification'. Set that, or leave test out."]
    if task == "classification" and value_of(values, "val_targets"):
        where = origins["val_targets"]
        return [f"{where}: val_targets = {values['val_targets']!r} score faces; a classification is scored on test."]
    return []


def _check_schedule(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    schedule, milestones = value_of(values, "lr_schedule"), value_of(values, "lr_milestones")
    num_epoch, where = value_of(values, "num_epoch"), origins["lr_milestones"]
    if schedule != "step":
        if not milestones:
            return []
        return [f"{where}: lr_milestones = {milestones!r} are for lr_schedule='step', not {schedule!r}. Set that."]
    if not milestones:
        return [f"{origins['lr_schedule']}: lr_schedule = 'step' needs lr_milestones, as in lr_milestones=(6, 8)."]
    if list(milestones) != sorted(set(milestones)) or milestones[0] <= 0 or milestones[-1] >= num_epoch:
        return [
            f"{where}: lr_milestones = {milestones!r} must grow, from above 0 to below num_epoch = {num_epoch}. "
            "Change them, or train longer."
        ]
    return []
