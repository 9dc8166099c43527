"""How the keys of insightface's recognition/arcface_torch are read or answered; no other key, and no file is read."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

# Keys without an effect here: what a reader of the config should know instead.
ANSWERS = {
    "save_all_states": "is not needed: whole training states are always saved, see checkpoint_interval",
    "dali": "has no effect: images are decoded by num_workers reader processes per rank",
    "dali_aug": "has no effect: see augmentation",
    "using_wandb": "has no effect: a run writes metrics.jsonl and TensorBoard files, which wandb can import",
    "wandb_key": "has no effect and is not kept; better not to write keys into config files",
    "wandb_entity": "has no effect, like using_wandb",
    "wandb_project": "has no effect, like using_wandb",
    "wandb_log_all": "has no effect, like using_wandb",
    "wandb_resume": "has no effect, like using_wandb",
    "save_artifacts": "has no effect, like using_wandb",
    "suffix_run_name": "has no effect: the run's name is its folder, see output",
    "notes": "has no effect, like using_wandb",
}
SCALE = 64.0  # train_v2.py passes it to every CombinedMarginLoss
RECOMPUTED = ("vit_b", "vit_l", "vit_h")
FEWEST = 1e-6  # stands for a sample_rate of 0, with which arcface_torch takes the batch's own classes and no others


def translate(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Turns one file's keys, or the command line's, into this project's.

    Args:
        values: key -> value as written.
        where: what notes and problems call the origin.

    Returns:
        The keys after translation, a note for each key that was translated or answered, and the problems.
    """
    native: dict[str, Any] = {}
    notes: dict[str, str] = {}
    problems: list[str] = []
    for name, value in values.items():
        if name in ANSWERS:
            notes[name] = f"{where}: {name} {ANSWERS[name]}."
        elif name in TRANSLATIONS:
            target, read = TRANSLATIONS[name]
            if target in values:
                problems.append(f"{where}: {name} and {target} are both set, and say the same thing. Keep {target}.")
                continue
            try:
                new, remark = read(value)
            except ValueError as error:
                problems.append(f"{where}: {name} = {value!r}, {error}")
                continue
            native.update(new)
            notes[name] = f"{where}: {name} = {value!r} is read as {_as_keys(new)}.{remark}"
        else:
            native[name] = value
    if is_arcface_torch(values):
        _adapt_training(native, notes, where)
    return native, notes, problems


def is_arcface_torch(values: Mapping[str, Any]) -> bool:
    """Whether a file is written for arcface_torch: every run there has a margin_list."""
    return "margin_list" in values


def linear_decay_note(where: str) -> str:
    """What is said where a file for arcface_torch leaves the decay's form to its program, which has only one."""
    return f"{where}: lr_power = 1.0, since arcface_torch lowers the learning rate along a straight line."


def _adapt_training(native: dict[str, Any], notes: dict[str, str], where: str) -> None:
    """Answers the values that arcface_torch accepts and treats otherwise than this project."""
    warmup = native.get("warmup_epoch")
    if isinstance(warmup, numbers.Real) and float(warmup) < 0:
        native["warmup_epoch"] = 0.0
        notes["warmup_epoch"] = f"{where}: warmup_epoch = {warmup} is read as 0.0, no warm-up."
    if native.get("sample_rate") == 0:
        native["sample_rate"] = FEWEST
        notes["sample_rate"] = f"{where}: sample_rate = 0 is read as {FEWEST}: as many classes as the batch has images."
    accumulation = native.get("gradient_acc", 1)
    if isinstance(accumulation, int) and accumulation > 1:
        said = f"{where}: gradient_acc = {accumulation} averages the gradients here; arcface_torch adds them up."
        notes["gradient_acc"] = said
    network = native.get("network")
    if isinstance(network, str) and network.startswith(RECOMPUTED) and "gradient_checkpointing" not in native:
        native["gradient_checkpointing"] = True
        said = f"{where}: gradient_checkpointing = True, since arcface_torch always recomputes the blocks of {network}."
        notes["gradient_checkpointing"] = said
    momentum = native.get("momentum", 0.9)
    if momentum != 0.9:
        notes["momentum"] = f"{where}: momentum = {momentum!r} counts here; arcface_torch trains with 0.9 regardless."


def _read_margins(value: Any) -> tuple[dict[str, Any], str]:
    """margin_list is (m1, m2, m3) of cos(m1 theta + m2) - m3."""
    if not (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(m, numbers.Real) and not isinstance(m, bool) for m in value)
    ):
        raise ValueError("but it must be three numbers (m1, m2, m3) of cos(m1 theta + m2) - m3, as (1.0, 0.5, 0.0).")
    m1, m2, m3 = (float(m) for m in value)
    if (m1, m2, m3) == (1.0, 0.0, 0.0):
        return {"head": "normface", "head_options": {"scale": SCALE}}, ""
    if (m1, m3) == (1.0, 0.0):
        return {"head": "arcface", "head_options": {"scale": SCALE, "margin": m2}}, ""
    if (m1, m2) == (1.0, 0.0):
        return {"head": "cosface", "head_options": {"scale": SCALE, "margin": m3}}, ""
    remark = " arcface_torch would train CosFace with m3 alone." if m3 > 0 else " arcface_torch would stop."
    return {"head": "combined", "head_options": {"scale": SCALE, "m1": m1, "m2": m2, "m3": m3}}, remark


def _read_fp16(value: Any) -> tuple[dict[str, Any], str]:
    if value not in (True, False):
        raise ValueError("but it must be True or False (or set precision to 'fp32', 'bf16' or 'fp16').")
    return {"precision": "fp16" if value else "fp32"}, ""


def _read_filter(value: Any) -> tuple[dict[str, Any], str]:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError("but it must be a number: a cosine, or 0 for no filter.")
    threshold = float(value)
    return {"interclass_filter": threshold if threshold > 0 else None}, ""


def _as_keys(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())


# arcface_torch's key -> the key that replaces it, and how its value is read.
TRANSLATIONS: dict[str, tuple[str, Callable[[Any], tuple[dict[str, Any], str]]]] = {
    "margin_list": ("head", _read_margins),
    "fp16": ("precision", _read_fp16),
    "interclass_filtering_threshold": ("interclass_filter", _read_filter),
}
