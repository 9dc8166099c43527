"""Everything that can be known to go wrong, told at once before anything starts. Builds nothing, changes nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from backbones import WeightsError, backbone_info, build_backbone
from dataset import Source, open_source
from eval.embedder import EmbedderError, find_weights
from eval.pairs import PairSet, load_pairs
from utils.checkpoint import complete_checkpoints
from utils.config import Config, missing_data_message
from utils.errors import DataError

# A folder with any of these holds a run that training would overwrite.
RESULTS = ("model.pt", "best.pt")
_STATES = {"sgd": 1, "adamw": 2}


@dataclass
class Inputs:
    """What a run reads, opened once: by the preflight for `build_run`.

    Attributes:
        source: the training data, or None where it could not be opened.
        pair_sets: the verification sets, in the order of `val_targets`.
        problems: one line each, with what to do; a run must not start while there are any.
    """

    source: Source | None = None
    pair_sets: list[PairSet] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect_run(config: Config, *, device: str | None = None, world_size: int = 1) -> Inputs:
    """Opens what a config names and collects every problem a run of it would meet.

    Args:
        config: the run.
        device: "cpu" or "cuda"; None takes the GPUs where torch sees any.
        world_size: number of ranks that will train.
    """
    inputs = Inputs()
    _inspect_data(config, world_size, inputs)
    # Where data and verification sets are one folder that is not there, one line about it is enough.
    is_told = config.verification_dir == config.rec and not Path(config.rec).exists() and bool(inputs.problems)
    for target in () if is_told else config.val_targets:
        try:
            inputs.pair_sets.append(load_pairs(target, Path(config.verification_dir)))
        except (DataError, OSError) as error:
            inputs.problems.append(f"val_targets: {error}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if config.precision == "fp16" and device == "cpu":
        inputs.problems.append(
            "precision = 'fp16' needs a GPU, and this run is on the CPU: use precision=bf16 or precision=fp32"
        )
    model = _inspect_backbone(config, inputs)
    if config.init_from is not None:
        try:
            find_weights(config.init_from, checkpoint="last")
        except EmbedderError as error:
            inputs.problems.append(f"init_from: {error}")
    _inspect_output(config, model, inputs)
    return inputs


def _inspect_data(config: Config, world_size: int, inputs: Inputs) -> None:
    missing = missing_data_message(config)
    if missing is not None:
        inputs.problems.append(missing)
        return
    try:
        source = inputs.source = open_source(config.rec)
    except (DataError, OSError) as error:
        inputs.problems.append(f"rec: {error}")
        return
    for key, given, found in (
        ("num_classes", config.num_classes, source.num_classes),
        ("num_image", config.num_image, len(source)),
    ):
        if given is not None and given != found:
            inputs.problems.append(
                f"{key} = {given}, but {config.rec} holds {found}: leave {key} out to read it from the data, "
                "or check that `rec` is the set you mean"
            )
    smallest = min(config.batch_size, len(source) // world_size)
    if smallest < 2:
        inputs.problems.append(
            f"batch_size = {config.batch_size} on {world_size} rank(s) with {len(source)} images leaves a rank with "
            f"{smallest} image(s) a step, and batch normalisation needs 2: "
            + ("use batch_size=2 or more" if config.batch_size < 2 else "start fewer ranks or add images")
        )


def _inspect_backbone(config: Config, inputs: Inputs) -> nn.Module | None:
    """The backbone without storage, and whether its input is what the source gives."""
    channels = 3 if inputs.source is None else inputs.source.image_format.channels
    try:
        with torch.device("meta"):
            model = build_backbone(
                config.network, embedding_size=config.embedding_size, dropout=config.dropout, in_channels=channels
            )
    except (ValueError, ImportError, WeightsError) as error:
        inputs.problems.append(f"network: {error}")
        return None
    wanted = backbone_info(model).image_size
    if inputs.source is not None and inputs.source.image_format.shape[:2] != wanted:
        height, width = inputs.source.image_format.shape[:2]
        inputs.problems.append(
            f"network = {config.network!r} takes images of {wanted[0]} x {wanted[1]} pixels, {config.rec} holds "
            f"{height} x {width}: choose another network, or align and pack the images at that size"
        )
    return model


def _inspect_output(config: Config, model: nn.Module | None, inputs: Inputs) -> None:
    output = Path(config.output or "")
    results = [name for name in RESULTS if (output / name).exists()]
    results += [path.name for path in complete_checkpoints(output / "checkpoints")]
    if results and not config.resume:
        inputs.problems.append(
            f"output: {output} already holds a run ({', '.join(results)}): continue it with resume=True, start "
            "another with output=FOLDER, or remove that folder"
        )
    existing = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        inputs.problems.append(f"output: cannot write to {existing}: choose another with output=FOLDER")
    elif model is not None:
        needed, free = disk_needed(config, model, inputs.source), shutil.disk_usage(existing).free
        if free < needed:
            inputs.problems.append(
                f"output: {existing} has {free / 1e9:.1f} GB free, and {config.keep_checkpoints} checkpoints, one in "
                f"the making and two models need {needed / 1e9:.1f} GB: free some, choose another output=FOLDER, or "
                "keep fewer with keep_checkpoints=1"
            )


def disk_needed(config: Config, model: nn.Module, source: Source | None) -> int:
    """Bytes a run writes at most at one time: the kept checkpoints, the one being written, last and best model."""
    copies = 1 + _STATES[config.optimizer]
    backbone = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    num_classes = source.num_classes if source is not None else config.num_classes or 0
    prototypes = 4 * num_classes * config.embedding_size
    return (config.keep_checkpoints + 1) * copies * (backbone + prototypes) + 2 * backbone
