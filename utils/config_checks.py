"""Checks that need more than one key, or the classes a key names; each key by itself is utils/config_keys.py's."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from utils.config_keys import Config, default_of
from utils.config_values import WrongTypeError, conform, describe_type, did_you_mean

INSTALLED = ("torchvision:", "timm:")  # networks whose names an optional package knows
# What every net is built with and a key of its own says; the rest of a net's signature is in `network_options`.
OWN_KEYS = frozenset({"embedding_size", "dropout", "gradient_checkpointing", "in_channels"})
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
    if _get(values, "init_class_map") is not None and _get(values, "init_head_from") is None:
        problems.append(
            f"{origins['init_class_map']}: init_class_map is set, but init_head_from is not. Set it to the run whose "
            "prototypes to take."
        )
    if backbones is not None and not failed & {"network", "network_options"}:
        problems += _check_network(values, origins, backbones)
    for name in _get(values, "regularizers"):
        if regularizers is not None and name not in regularizers:
            problems.append(f"{origins['regularizers']}: {_unknown('regularizer', name, regularizers)}")
    if heads is not None and not failed & {"head", "head_options"}:
        problems += _check_head(values, origins, heads)
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


def _get(values: Mapping[str, Any], name: str) -> Any:
    return values.get(name, default_of(name))


def _unknown(kind: str, name: str, known: typing.Iterable[str]) -> str:
    names = sorted(known)
    return f"{kind} {name!r} is not among those here.{did_you_mean(name, names)} Have: {', '.join(names)}."


def _check_sampler(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    batch_size, per_identity = _get(values, "batch_size"), _get(values, "images_per_identity")
    if _get(values, "sampler") != "identities" or batch_size % per_identity == 0:
        return []
    return [
        f"{origins['batch_size']}: batch_size = {batch_size} is no multiple of images_per_identity = {per_identity}: "
        "groups of one identity would be cut between ranks. Change one of them."
    ]


def _check_data(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    rec = _get(values, "rec")
    if not rec:
        return [f"{origins['rec']}: rec is not set. Name the training data, as in rec=/path/to/faces."]
    if _get(values, "val_targets") and _get(values, "val_dir") is None and _is_no_folder(rec):
        where = origins["val_targets"]
        return [f"{where}: val_targets are set, but rec = {rec!r} is no folder to find them in. Set val_dir to theirs."]
    return []


def _check_epochs(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    num_epoch = _get(values, "num_epoch")
    return [
        f"{origins[name]}: {name} = {values[name]:g} exceeds num_epoch = {num_epoch}. Lower it, or train longer."
        for name in ("warmup_epoch", "margin_warmup_epochs")
        if name in values and values[name] > num_epoch
    ]


def _check_task(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """Pairs score faces, test images a classification."""
    task = _get(values, "task")
    if task == "faces" and _get(values, "test") is not None:
        where = origins["test"]
        return [f"{where}: test = {values['test']!r} belongs to task='classification'. Set that, or leave test out."]
    if task == "classification" and _get(values, "val_targets"):
        where = origins["val_targets"]
        return [f"{where}: val_targets = {values['val_targets']!r} score faces; a classification is scored on test."]
    return []


def _check_schedule(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    schedule, milestones = _get(values, "lr_schedule"), _get(values, "lr_milestones")
    num_epoch, where = _get(values, "num_epoch"), origins["lr_milestones"]
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


def _check_head(values: dict[str, Any], origins: Mapping[str, str], heads: Mapping[str, type]) -> list[str]:
    """Checks the head's name, its options against the head's own signature, and what the head supports."""
    name, options = _get(values, "head"), _get(values, "head_options")
    if name not in heads:
        return [f"{origins['head']}: {_unknown('head', name, heads)}"]
    head, where = heads[name], origins["head_options"]
    clean, problems = _check_options("head", name, options, head, where)
    built: Any = head
    if not problems:
        try:
            built = head(**clean)  # the head knows its own ranges
        except (ValueError, TypeError) as error:
            problems.append(f"{where}: head {name!r} with {clean!r}: {error}")
        else:
            values["head_options"] = clean
    on_cosines = getattr(built, "normalize_embeddings", True) and getattr(built, "normalize_prototypes", True)
    if _get(values, "interclass_filter") is not None and not on_cosines:
        problems.append(
            f"{origins['interclass_filter']}: interclass_filter = {values['interclass_filter']:g} is a cosine, but "
            f"head {name!r} works on inner products. Set it to None, or choose a head on cosines, as arcface."
        )
    if _get(values, "margin_warmup_epochs") > 0 and not getattr(head, "supports_margin_warmup", False):
        able = sorted(other for other in heads if getattr(heads[other], "supports_margin_warmup", False))
        problems.append(
            f"{origins['margin_warmup_epochs']}: margin_warmup_epochs = {values['margin_warmup_epochs']:g}, but head "
            f"{name!r} has no margin that can grow. Set it to 0, or choose one of: {', '.join(able) or 'none'}."
        )
    return problems


def _check_network(values: dict[str, Any], origins: Mapping[str, str], backbones: Mapping[str, Any]) -> list[str]:
    """Checks the network's name, and its options' names and types; ranges are known to the net, which preflight builds.

    Nets of an installed package have signatures that nothing here knows: their options are theirs to refuse.
    """
    name, options = _get(values, "network"), _get(values, "network_options")
    if name.startswith(INSTALLED):
        taken = sorted(options.keys() & OWN_KEYS)
        return [_own_key(origins["network_options"], option) for option in taken]
    if name not in backbones:
        names = [*backbones, *(f"{prefix}NAME" for prefix in INSTALLED)]
        return [f"{origins['network']}: {_unknown('network', name, names)}"]
    clean, problems = _check_options("network", name, options, backbones[name], origins["network_options"])
    if not problems and "network_options" in values:
        values["network_options"] = clean
    return problems


def _own_key(where: str, option: str) -> str:
    return f"{where}: network_options.{option}: {option} is a key of its own, write {option}=VALUE."


def _check_options(
    kind: str, name: str, options: Mapping[str, Any], builder: Any, where: str
) -> tuple[dict[str, Any], list[str]]:
    """Options of a head or network (`kind`) as the types that its signature says, and a line for each wrong one."""
    own_keys = OWN_KEYS if kind == "network" else frozenset()
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in own_keys
    }
    hints = _argument_hints(builder)
    listed = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters.values())
    clean: dict[str, Any] = {}
    problems = []
    for option, value in options.items():
        if option in own_keys:
            problems.append(_own_key(where, option))
            continue
        if option not in parameters:
            near = did_you_mean(option, parameters)
            has = f"It has: {listed or 'none'}."
            without = "" if near or kind == "head" else " Without any: network_options={}."
            problems.append(f"{where}: {kind} {name!r} has no option {option!r}.{near} {has}{without}")
            continue
        try:
            clean[option] = conform(value, hints.get(option, Any))
        except WrongTypeError:
            asked = describe_type(hints[option])
            problems.append(f"{where}: {kind}_options.{option} = {value!r}, but {kind} {name!r} takes {asked}.")
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if missing:
        problems.append(f"{where}: {kind} {name!r} also needs {', '.join(missing)}. It has: {listed}.")
    return clean, problems


def _argument_hints(builder: Any) -> dict[str, Any]:
    """Returns the types of a builder's arguments; none where its annotations cannot be resolved, so nothing is checked.

    Args:
        builder: a class, a function, or a `functools.partial` of either.
    """
    called = builder.func if isinstance(builder, partial) else builder
    try:
        return typing.get_type_hints(inspect.getattr_static(called, "__init__") if inspect.isclass(called) else called)
    except (NameError, TypeError):
        return {}
