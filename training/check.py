"""The story of `python train.py CONFIG --check`: findings, two steps, an estimate of the whole run, exit status."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import torch

from training.build import build_run
from training.estimate import (
    LEAST_STEPS,
    Steps,
    all_reduce_model,
    children_bytes,
    count_saves,
    count_verifications,
    estimate_run,
    measure_all_reduce,
    measure_scoring,
    measure_steps,
    traffic,
)
from training.inputs import Inputs
from training.precision import resolve_precision
from training.resources import Sizes, as_size, memory_needed, sizes_of
from training.run import Run
from training.step import NonFiniteError
from utils.config import Config
from utils.distributed import RankError, Ranks, available_cores, gather_objects, start_ranks, stop_ranks
from utils.errors import DataError
from utils.logging import memory_bytes
from utils.pace import format_seconds

_WIDTH = 14  # of a heading


def check_run(config: Config, inputs: Inputs, device: str | None, headline: str) -> int:
    """Tells what was found, takes a few steps and tells what the whole run will take; collective.

    Args:
        config: the run.
        inputs: from a thorough `inspect_run`, without problems.
        device: "cpu" or "cuda"; None takes the GPUs where torch sees any.
        headline: what the run is, for the first line.

    Returns:
        The exit status: 0, or 2 where the steps showed a problem; a rank with a problem tells it.
    """
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main:
        _tell("run", headline)
        for heading, line in sorted(inputs.findings, key=lambda finding: _ORDER.index(finding[0])):
            _tell(heading, line)
    try:
        ranks = start_ranks(device, config.threads)
        found = _measure(config, ranks, inputs)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error) and not isinstance(error, RankError):
            raise
        _complain(_explain_memory(config, inputs) if not isinstance(error, RankError) else str(error), error)
        return 2
    except (DataError, NonFiniteError) as error:
        _complain(f"the first steps failed: {error}", error)
        return 2
    if is_main:
        for heading, line in found:
            _tell(heading, line)
        print("no problem found; nothing was left behind", flush=True)
    stop_ranks()
    return 0


_ORDER = ("data", "verification", "output", "limits")


def _measure(config: Config, ranks: Ranks, inputs: Inputs) -> list[tuple[str, str]]:
    """What only doing it can tell, as headings and lines; collective."""
    lines = [("device", _describe_device(config, ranks))]
    reduced = measure_all_reduce(ranks)
    run = build_run(replace(config, output="", resume=False), ranks, inputs)  # without a folder nothing is written
    sizes = sizes_of(run.config, run.backbone, run.source)
    readers = []
    steps = measure_steps(run, lambda: readers.append(children_bytes()))
    if reduced:
        lines.append(("interconnect", _describe_interconnect(run, reduced, steps)))
    lines.append(
        ("steps", f"{1 + len(steps.others)} taken, loss {steps.loss:.3f}; the first {steps.first:.2f} s, then "
         f"{_span(steps)} each, {steps.images / steps.typical:.0f} images/s, data wait {steps.waited:.0%}")
    )  # fmt: skip
    verification = measure_scoring(run, steps.typical)
    peaks = gather_objects((memory_bytes(), readers[0]))
    lines += _describe_memory(run, sizes, peaks)
    return lines + _describe_whole(run, sizes, steps, verification, inputs.write_speed)


def _describe_device(config: Config, ranks: Ranks) -> str:
    precision = resolve_precision(config.precision, ranks.device)
    has_units = resolve_precision("auto", ranks.device) == "bf16"
    units = "bf16 units" if has_units else "no bf16 units"
    emulated = ", emulated: slower than fp32" if precision == "bf16" and not has_units else ""
    if ranks.device.type == "cuda":
        properties = torch.cuda.get_device_properties(ranks.device)
        free = torch.cuda.mem_get_info(ranks.device)[0]
        name = (
            f"{properties.name}, {as_size(free)} of {as_size(properties.total_memory)} free, capability "
            f"{properties.major}.{properties.minor}"
        )
    else:
        name = f"CPU, {available_cores()} cores, {torch.get_num_threads()} threads a rank"
    return f"{ranks.world_size} rank(s), {ranks.local_world_size} here, each on {name}, {units}; {precision}{emulated}"


def _describe_interconnect(run: Run, reduced: list[tuple[int, float]], steps: Steps) -> str:
    latency, speed = all_reduce_model(reduced)
    gradients, head, number = traffic(run)
    seconds = number * latency + (gradients + head) / speed
    sizes = ", ".join(f"{as_size(size)} in {taken * 1e3:.2f} ms" for size, taken in reduced)
    return (
        f"all-reduce over {run.ranks.world_size} ranks: {sizes} ({as_size(speed)}/s); a step sums {as_size(gradients)} "
        f"of gradients and {as_size(head)} for the head: about {seconds * 1e3:.1f} ms, "
        f"{seconds / steps.typical:.0%} of a step where nothing overlaps"
    )


def _describe_memory(run: Run, sizes: Sizes, peaks: list[tuple[int, tuple[int, int]]]) -> list[tuple[str, str]]:
    told = ", ".join(f"rank {rank} {as_size(peak)}" for rank, (peak, _) in enumerate(peaks[:8]))
    more = f", the largest of all {as_size(max(peak for peak, _ in peaks))}" if len(peaks) > 8 else ""
    kind = "of GPU memory" if run.ranks.device.type == "cuda" else "of the whole process"
    number, readers = peaks[0][1]
    lines = [("memory", f"peak {kind} in these steps: {told}{more}")]
    if number:
        lines.append(("memory", f"{number} readers of a rank: {as_size(readers)}"))
    if run.config.async_save:
        copy = sizes.checkpoint // run.ranks.world_size
        lines.append(("memory", f"saving in the background keeps a copy beside: {as_size(copy)} of CPU memory a rank"))
    return lines


def _describe_whole(
    run: Run, sizes: Sizes, steps: Steps, verification: float, write_speed: float
) -> list[tuple[str, str]]:
    plan, config = run.plan, run.config
    whole = estimate_run(run, steps, verification, sizes, write_speed)
    images = run.scored.num_images
    times = count_verifications(plan, config.verbose)
    verified = (
        f"{times} verifications of {images} images {format_seconds(whole.verification)}, {verification:.1f} s each"
    )
    saved = f"{as_size(sizes.checkpoint)} each, {sizes.checkpoint / max(write_speed, 1.0):.1f} s to write"
    behind = " in the background" if config.async_save else ""
    return [
        ("whole run", f"{format_seconds(whole.total)}: {plan.total_steps} steps of {config.num_epoch} epochs "
         f"{format_seconds(whole.training)}; {verified if images else 'nothing to verify on'}; "
         f"{count_saves(plan, config.checkpoint_interval)} checkpoints {format_seconds(whole.saving)}, {saved}{behind}")
    ]  # fmt: skip


def _span(steps: Steps) -> str:
    times = steps.others or [steps.first]
    return f"{min(times) * 1e3:.0f} to {max(times) * 1e3:.0f} ms, median {steps.typical * 1e3:.0f}"


def _is_lack_of_memory(error: BaseException) -> bool:
    """torch raises a plain RuntimeError where the CPU's allocator fails."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _explain_memory(config: Config, inputs: Inputs) -> str:
    """What the memory went to, and which settings need less of it."""
    remedies = ["a smaller batch_size", "gradient_checkpointing=True", "more ranks"]
    parts = ""
    if inputs.sizes is not None:
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        parts = (
            f"weights, states and gradients alone take {as_size(memory_needed(config, inputs.sizes, world_size))} of it"
        )
        if inputs.sizes.prototypes / world_size > inputs.sizes.backbone:
            remedies.insert(0, f"sample_rate={min(0.1, config.sample_rate / 2):g}")
    return f"memory: {LEAST_STEPS} steps do not fit; {parts}; what needs less: {', '.join(remedies)}"


def _complain(problem: str, error: BaseException) -> None:
    rank = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
    print(f"{rank}{problem}\n{rank}({type(error).__name__}: {str(error).splitlines()[0]})", file=sys.stderr, flush=True)


def _tell(heading: str, line: str) -> None:
    print(f"{heading:{_WIDTH}}{line}", flush=True)
