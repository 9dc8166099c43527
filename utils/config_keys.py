"""The one list of configuration keys (type, default, unit, help, range); how files are read is utils/config.py's."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, Literal

from utils.config_values import ConfigError, WrongTypeError, about, conform, describe_type, did_you_mean, key

# What people write who come from elsewhere, where the spelling alone does not lead to our key.
SYNONYMS = {
    "backbone": "network", "arch": "network", "model": "network", "pretrained": "init_from", "loss": "head",
    "loss_name": "head", "margin": "head_options", "scale": "head_options", "width": "network_options",
    "stem": "network_options", "learning_rate": "lr", "wd": "weight_decay",
    "epochs": "num_epoch", "max_epochs": "num_epoch", "bs": "batch_size", "workers": "num_workers", "amp": "precision",
    "bf16": "precision", "grad_clip": "clip_norm", "accumulate": "gradient_acc", "data": "rec", "root": "rec",
    "eval_interval": "verbose", "log_interval": "frequent", "save_interval": "checkpoint_interval",
    "work_dir": "output", "output_dir": "output", "identities": "num_classes",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One run, validated and frozen; `load_config` makes it from a file, `from_dict` from a run's config.json.

    Attributes beyond the keys:
        name: of the config file, without folder and suffix.
        source: path of the config file as it was found.
        notes: one line for each arcface_torch key that was translated or answered.
    """

    # fmt: off
    task: Literal["faces", "classification"] = key(
        "faces", "`faces`: embeddings, scored on pairs of unknown people; `classification`: prototypes and all, scored "
        "on test images of the same classes", group="Task")
    rec: str = key("", "training data: folder with train.rec and train.idx, image folder, `mnist:DIR`, `cifar10:DIR` "
                   "or another kind of docs/data.md; relative to the working directory", group="Data")
    num_classes: int | None = key(None, "identities; None: read from the data, else checked against it", "[2, inf)")
    num_image: int | None = key(None, "training images; None: read from the data, else checked against it", "[1, inf)",
                                unit="images")
    imbalance: Literal["none", "long_tailed", "step"] = key(
        "none", "train on fewer images of some classes, drawn by `seed`: `long_tailed`, sizes fall from class to class "
        "by a constant factor; `step`, half of the classes are small")
    imbalance_ratio: float = key(100.0, "largest over smallest class, for `imbalance`", "[1, inf)")
    normalization: Literal["source", "unit", "symmetric", "mean_image"] = key(
        "source", "of pixels: `source`, the constants of the data (faces: `symmetric`); `unit`, x / 255; `symmetric`, "
        "(x - 127.5) / 127.5; `mean_image`, (x - mean training image) / std, all images are read once before training")
    augmentation: Literal["none", "flip", "pad_crop_flip", "shift_flip"] = key(
        "flip", "`flip` mirrors half of the images; `pad_crop_flip` also shifts them by up to 4 pixels into black, as "
        "for CIFAR, `shift_flip` into the rim's own colours, for faces")
    num_workers: int = key(2, "reader processes per rank; 0 reads in the training process", "[0, inf)",
                           unit="processes")
    sampler: Literal["uniform", "class_balanced", "identities"] = key(
        "uniform", "`uniform`: each image once an epoch; `class_balanced`: each class as often; `identities`: batches "
        "of `images_per_identity` images a class")
    images_per_identity: int = key(4, "for `sampler=\"identities\"`", "[2, inf)", unit="images")
    bad_records: Literal["stop", "skip"] = key(
        "stop", "an image that cannot be read ends the run, or is counted and replaced by another")
    max_bad_records: int = key(1000, "different ones over all ranks with which `bad_records=\"skip\"` goes on",
                               "[1, inf)", unit="images")

    val_targets: tuple[str, ...] = key(
        (), "verification sets: `NAME` for NAME.bin or a folder NAME of images and pairs.txt", group="Verification")
    test: str | None = key(None, "test images for `task=\"classification\"`, a location like `rec`; None: the test "
                           "half that belongs to `rec`")
    val_dir: str | None = key(None, "folder that holds the verification sets; None: `rec`")
    verbose: int = key(2000, "between verifications or tests; 0: at the end of each epoch", "[0, inf)", unit="steps")

    network: str = key("r50", "backbone, see docs/backbones.md; `torchvision:NAME`, `timm:NAME` where installed",
                       group="Backbone")
    network_options: dict[str, Any] = field(
        default_factory=dict, metadata=about("the net's own arguments, e.g. `network_options.width=0.25`"))
    embedding_size: int = key(512, "length of an embedding", "[1, inf)")
    dropout: float = key(0.0, "probability before the last linear layer", "[0, 1)")
    init_from: str | None = key(None, "weights to start from: a run folder, model.pt or an arcface_torch backbone.pth")
    init_head_from: str | None = key(None, "run folder whose prototypes to start from, class by class")
    init_class_map: str | None = key(
        None, "text file for `init_head_from`: line i names the class there that is class i here, or - for a new one")
    gradient_checkpointing: bool = key(False, "recompute activations in the backward pass: less memory, more time")
    channels_last: bool = key(True, "store activations as (B, H, W, C), which convolutions prefer")
    compile: bool = key(False, "compile the backbone with torch.compile")

    head: str = key("svsoftmax", "margin head by its name in `losses.HEADS`", group="Head")
    head_options: dict[str, Any] = field(
        default_factory=dict, metadata=about("the head's own arguments, e.g. `head_options.margin=0.5`"))
    regularizers: dict[str, float] = field(
        default_factory=dict, metadata=about("name in `losses.REGULARIZERS` -> weight of its term"))
    interclass_filter: float | None = key(
        None, "leave out non-targets more similar than this (mislabelled identities); None: off", "(0, 1)",
        unit="cosine")
    margin_warmup_epochs: float = key(0.0, "the margin grows from 0 to its full size over these", "[0, inf)",
                                      unit="epochs")
    sample_rate: float = key(1.0, "partial FC: share of the classes in each step; targets are always in", "(0, 1]")
    sampling_correction: bool = key(False, "weigh the sampled non-targets so that they stand for all of them")
    memory_budget: int | None = key(
        None, "what the head may keep for the backward pass, per rank; None: 256", "[1, inf)",
        unit="MiB")

    optimizer: Literal["sgd", "adamw"] = key("sgd", "for backbone and prototypes", group="Optimisation")
    lr: float = key(0.1, "peak learning rate of the backbone, not scaled by ranks or batch", "(0, inf)")
    head_lr: float | None = key(None, "peak learning rate of the prototypes; None: `lr`", "(0, inf)")
    momentum: float = key(0.9, "SGD's momentum", "[0, 1)")
    weight_decay: float = key(5e-4, "of the backbone", "[0, inf)")
    head_weight_decay: float | None = key(None, "of the prototypes; None: `weight_decay`", "[0, inf)")
    batch_size: int = key(128, "per rank and micro-batch", "[1, inf)", unit="images")
    gradient_acc: int = key(1, "micro-batches averaged into one step", "[1, inf)")
    num_epoch: int = key(20, "passes over the data", "[1, inf)", unit="epochs")
    warmup_epoch: float = key(0.0, "the learning rate grows to its peak over these", "[0, inf)", unit="epochs")
    lr_schedule: Literal["polynomial", "step", "cosine"] = key(
        "polynomial", "after the warm-up: lr * (1 - progress) ** lr_power; lr times `lr_gamma` at each of "
        "`lr_milestones`; or half a cosine down to 0")
    lr_power: float = key(2.0, "of `lr_schedule=\"polynomial\"`; arcface_torch: 1", "[0, inf)")
    lr_milestones: tuple[float, ...] = key((), "of `lr_schedule=\"step\"`, in epochs, as in `(6, 8.5)`")
    lr_gamma: float = key(0.1, "of `lr_schedule=\"step\"`", "(0, 1]")
    clip_norm: float = key(5.0, "largest gradient norm; 0: off", "[0, inf)")
    clip_scope: Literal["backbone", "all"] = key(
        "backbone", "whose gradients the norm counts; `all` includes the prototypes of all ranks")
    on_nonfinite: Literal["stop", "skip"] = key(
        "stop", "a loss or gradient that is no finite number ends the run, or only its step's update is left out")
    max_nonfinite_steps: int = key(20, "in a row with which `on_nonfinite=\"skip\"` goes on", "[1, inf)", unit="steps")
    loss_spike: float = key(6.0, "report a loss this far above the recent mean; 0: off", "[0, inf)",
                            unit="standard deviations")

    precision: Literal["auto", "fp32", "bf16", "fp16"] = key(
        "fp32", "of the backbone; fp16 scales the loss and needs a GPU; `auto`: bf16 where the hardware has it, "
        "else fp16 on GPUs and fp32 on CPUs", group="Run")
    seed: int = key(2048, "of weights, order, augmentation and sampling", "[0, inf)")
    threads: int | None = key(None, "CPU threads per rank; None: the machine's cores shared among its ranks",
                              "[1, inf)", unit="threads")
    output: str | None = key(None, "folder of the run; None: work_dirs/NAME of the config file")
    resume: bool = key(False, "continue from the newest checkpoint in `output`")
    checkpoint_interval: int = key(1000, "between checkpoints; each epoch's end has one too", "[1, inf)", unit="steps")
    keep_checkpoints: int = key(2, "newest checkpoints kept", "[1, inf)")
    keep_best: int = key(0, "checkpoints with the best verification kept beside the newest", "[0, inf)")
    async_save: bool = key(False, "write checkpoints beside the steps, from a copy in the CPU's memory")
    deterministic: bool = key(False, "the same bits in every run on the same machine; slower on GPUs")
    hang_timeout: int = key(600, "without progress after which a rank reports its stacks and ends; 0: never",
                            "[0, inf)", unit="seconds")
    max_log_size: int = key(
        256, "of training.log, which then becomes training.log.1 in place of an older one", "[1, inf)", unit="MiB")
    frequent: int = key(10, "between log lines", "[1, inf)", unit="steps")

    # fmt: on
    name: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def verification_dir(self) -> str:
        """Folder that holds the verification sets."""
        return self.val_dir if self.val_dir is not None else self.rec

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; `from_dict` of them equals this config."""
        values: dict[str, Any] = json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Config:
        """Rebuilds a config from `to_dict`'s result.

        Args:
            values: key -> value; missing keys take their defaults.
            where: what an error calls the origin.

        Raises:
            ConfigError: an unknown key, a wrong type or a value out of range; all of them at once.
        """
        own = {name: values[name] for name in ("name", "source") if name in values}
        keys = {name: value for name, value in values.items() if name not in ("name", "source", "notes")}
        clean, problems = check_values(keys, dict.fromkeys(keys, where))
        if problems:
            raise ConfigError(problems)
        return cls(**clean, **own, notes=tuple(values.get("notes", ())))


@cache
def config_keys() -> dict[str, Field[Any]]:
    """Returns every key a file may set, in the order of docs/config.md."""
    return {f.name: f for f in fields(Config) if f.metadata}


@cache
def key_types() -> dict[str, Any]:
    """Returns the resolved type of every key."""
    hints = typing.get_type_hints(Config)
    return {name: hints[name] for name in config_keys()}


def default_of(name: str) -> Any:
    """Returns the default value of a key."""
    declared = config_keys()[name]
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


def check_values(values: Mapping[str, Any], origins: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Checks names, types and ranges of keys, each by itself.

    Args:
        values: key -> value as written.
        origins: key -> the place that wrote it, for the error's first words.

    Returns:
        The values as their keys' types, and a line for each problem.
    """
    clean: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in values.items():
        where = origins[name]
        if name not in config_keys():
            problems.append(f"{where}: unknown key {name!r}.{hint_for(name)}")
            continue
        declared, hint = config_keys()[name].metadata, key_types()[name]
        interval = declared["allowed"]
        asked = describe_type(hint) + (f", {interval}" if interval else "")
        asked += f" {declared['unit']}" if interval and declared["unit"] else ""
        wrong = f"{where}: {name} = {value!r}, but it must be {asked} ({declared['help']})."
        try:
            number = clean[name] = conform(value, hint)
        except WrongTypeError:
            problems.append(wrong + _choice_hint(value, hint))
            continue
        if interval is not None and number is not None and number not in interval:
            problems.append(wrong)
    return clean, problems


def hint_for(name: str) -> str:
    """Returns what to do about an unknown key: the key that was probably meant, or where all keys are listed."""
    if name.lower() in SYNONYMS:
        return f" Did you mean {SYNONYMS[name.lower()]!r}?"
    return did_you_mean(name, config_keys()) or " `python -m utils.config` lists all keys."


def _choice_hint(value: Any, hint: Any) -> str:
    choices = [str(choice) for choice in typing.get_args(hint)] if typing.get_origin(hint) is Literal else []
    return did_you_mean(value, choices) if isinstance(value, str) else ""
