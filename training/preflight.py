"""Everything that can be known to go wrong, told at once before anything starts. Builds nothing, leaves nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from backbones import WeightsError, backbone_info, build_backbone
from dataset import Source, batches_per_epoch
from eval.embedder import EmbedderError, find_weights
from training.data import open_training_source
from training.inputs import Inputs
from training.resources import (
    Sizes,
    as_size,
    disk_needed,
    fitting_sample_rate,
    fitting_world_size,
    local_ranks,
    memory_available,
    memory_needed,
    open_files_allowed,
    open_files_needed,
    shared_memory_free,
    shared_memory_needed,
    sizes_of,
)
from training.samples import describe_classes, look_at_images, try_writing
from training.scored_data import open_scored
from utils.checkpoint import complete_checkpoints
from utils.config import Config, missing_data_message
from utils.errors import DataError
from utils.schedule import Plan

# A folder with any of these holds a run that training would overwrite.
RESULTS = ("model.pt", "best.pt")


def inspect_run(config: Config, *, device: str | None = None, world_size: int = 1, is_thorough: bool = False) -> Inputs:
    """Opens what a config names and collects every problem a run of it would meet.

    Args:
        config: the run.
        device: "cpu" or "cuda"; None takes the GPUs where torch sees any.
        world_size: number of ranks that will train.
        is_thorough: also read a sample of the data, write a file, and compare memory: seconds instead of milliseconds.
    """
    inputs = Inputs()
    _inspect_data(config, world_size, inputs)
    inputs.scored = open_scored(config, inputs.source, inputs.problems)
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
    sizes = inputs.sizes = None if model is None else sizes_of(config, model, inputs.source)
    _inspect_output(config, world_size, sizes, inputs)
    if sizes is not None:
        _inspect_limits(config, sizes, inputs)
    if is_thorough:
        _look_closer(config, device, world_size, sizes, inputs)
    return inputs


def plan_of(config: Config, source: Source, world_size: int) -> Plan:
    """How long a run of this config is."""
    global_batch_size = config.batch_size * world_size
    per_epoch = batches_per_epoch(len(source), global_batch_size)
    return Plan(per_epoch, config.num_epoch, min(global_batch_size, len(source)), config.gradient_acc)


def _inspect_data(config: Config, world_size: int, inputs: Inputs) -> None:
    missing = missing_data_message(config)
    if missing is not None:
        inputs.problems.append(missing)
        return
    try:
        source = inputs.source = open_training_source(config)
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
                config.network,
                embedding_size=config.embedding_size,
                dropout=config.dropout,
                in_channels=channels,
                **config.network_options,
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


def _inspect_output(config: Config, world_size: int, sizes: Sizes | None, inputs: Inputs) -> None:
    output = Path(config.output or "")
    checkpoints = complete_checkpoints(output / "checkpoints")
    results = [name for name in RESULTS if (output / name).exists()] + [path.name for path in checkpoints]
    if results and not config.resume:
        inputs.problems.append(
            f"output: {output} already holds a run ({', '.join(results)}): continue it with resume=True, start "
            "another with output=FOLDER, or remove that folder"
        )
    if config.resume and (output / "model.pt").exists() and not any((output / "checkpoints").glob("*step_*")):
        inputs.problems.append(  # model.pt is never written before the first checkpoint is whole
            f"output: {output} holds model.pt of a run, but no checkpoint to resume it from: put its checkpoints back, "
            "start another run with output=FOLDER, or remove that folder"
        )
    existing = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        inputs.problems.append(f"output: cannot write to {existing}: choose another with output=FOLDER")
    elif sizes is not None:
        steps = 0 if inputs.source is None else plan_of(config, inputs.source, world_size).total_steps
        needed, free = disk_needed(config, sizes, steps), shutil.disk_usage(existing).free
        free_or_ours = free + sum(file.stat().st_size for path in checkpoints for file in path.iterdir())
        inputs.tell("output", f"{as_size(needed)} of {existing} needed at most, {as_size(free)} free")
        if free_or_ours < needed:
            kept = f"{config.keep_checkpoints} checkpoints" + (f" and {config.keep_best} best" * bool(config.keep_best))
            inputs.problems.append(
                f"output: {existing} has {as_size(free)} free, and {kept}, one in the making, two models and logs "
                f"need {as_size(needed)}: free some, choose another output=FOLDER, or keep fewer with "
                "keep_checkpoints=1"
            )


def _inspect_limits(config: Config, sizes: Sizes, inputs: Inputs) -> None:
    """What the readers need of this machine; without it they die in the middle of a run."""
    needed, free = shared_memory_needed(config, sizes, local_ranks()), shared_memory_free()
    if free is not None:
        inputs.tell("limits", f"{as_size(needed)} of shared memory needed by readers, {as_size(free)} free")
        if free < needed:
            inputs.problems.append(
                f"num_workers: {config.num_workers} readers for each of {local_ranks()} rank(s) hand batches over in "
                f"{as_size(needed)} of shared memory, and /dev/shm has {as_size(free)}: use fewer readers or smaller "
                "batches, or give a container more (docker run --shm-size)"
            )
    files, allowed = open_files_needed(config), open_files_allowed()
    inputs.tell("limits", f"{files} open files a rank needed, {allowed} allowed")
    if allowed < files:
        inputs.problems.append(
            f"num_workers: a rank with {config.num_workers} readers opens up to {files} files, and {allowed} are "
            "allowed: raise the limit with `ulimit -n`, or use fewer readers"
        )


def _inspect_memory(config: Config, device: str, world_size: int, sizes: Sizes, inputs: Inputs) -> None:
    """Whether weights, states and gradients can fit at all; what activations need only two steps can tell."""
    needed = memory_needed(config, sizes, world_size)
    available = memory_available(device, int(os.environ.get("LOCAL_RANK", "0")), local_ranks())
    if available is None or needed <= available:
        return
    rate = fitting_sample_rate(config, sizes, world_size, available)
    ranks = fitting_world_size(config, sizes, world_size, available)
    remedies = [f"sample_rate={rate}"] * (rate is not None) + [f"{ranks} ranks"] * (ranks is not None)
    inputs.problems.append(
        f"memory: weights, {config.optimizer} states and gradients need {as_size(needed)} on each of {world_size} "
        f"rank(s), {as_size(memory_needed(config, replace(sizes, backbone=0), world_size))} of it for the prototypes, "
        f"and {as_size(available)} of the {'GPU' if device == 'cuda' else 'machine'} are free for each: "
        + (f"{' or '.join(remedies)} would fit" if remedies else "use a smaller network or embedding_size")
    )


def _look_closer(config: Config, device: str, world_size: int, sizes: Sizes | None, inputs: Inputs) -> None:
    """The part of `--check` that reads and writes; it leaves nothing behind."""
    source = inputs.source
    if source is not None:
        inputs.tell("data", describe_classes(source))
        findings, problems = look_at_images(source, config)
        inputs.tell("data", *findings)
        inputs.problems += problems
        if sizes is not None:
            _inspect_memory(config, device, world_size, sizes, inputs)
    findings, problems = inputs.scored.look(source if os.environ.get("RANK", "0") == "0" else None)
    inputs.tell("verification", *findings)
    inputs.problems += problems
    if not any(problem.startswith("output: cannot write") for problem in inputs.problems):
        inputs.write_speed, problems = try_writing(Path(config.output or ""))
        inputs.problems += problems
        if not problems:
            inputs.tell("output", f"{config.output} can be written, {as_size(inputs.write_speed)}/s")
