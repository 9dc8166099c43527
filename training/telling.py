"""What a run says of itself: a line at its start, one at intervals, what a step wants told at once. Decides nothing."""

from __future__ import annotations

from training.inputs import Inputs
from training.run import Run
from training.step import StepResult, target_cosine
from utils.config import Config
from utils.logging import RunLog, memory_bytes
from utils.pace import Reading, format_seconds


def summary(config: Config, inputs: Inputs) -> str:
    """What a run will do, in a few lines, and what to know of the sets it is verified on."""
    source = inputs.source
    data = f"{len(source)} images of {source.num_classes} classes" if source is not None else "no data"
    told = (
        f"{config.name}: {config.network} ({config.embedding_size}) with {config.head} {config.head_options} on "
        f"{config.rec}: {data}; {config.num_epoch} epochs, {config.optimizer}, lr {config.lr:g}, batch "
        f"{config.batch_size} x {config.gradient_acc} per rank, {config.precision}; {inputs.scored.describe()}; "
        f"writes {config.output}"
    )
    return "\n".join([told, *inputs.scored.warnings()])


def log_step(run: Run, log: RunLog, done: int, result: StepResult, loss: float, reading: Reading) -> None:
    """One line for people and one for machines; `loss` is the mean since the last."""
    cosine, plan = target_cosine(run), run.plan
    log.info(
        f"step {done}/{plan.total_steps} epoch {done / plan.steps_per_epoch:.2f}/{plan.num_epoch} | loss {loss:.4f} | "
        f"lr {result.lr:.3g} | target cosine {cosine:.3f} | {reading.images_per_second:.0f} images/s | "
        f"data wait {reading.data_wait:.0%} | ETA {format_seconds(reading.seconds_left)}"
    )
    log.metrics(
        "train", step=done, epoch=plan.epoch(done - 1), loss=loss, lr=result.lr, grad_norm=result.grad_norm,
        loss_scale=result.loss_scale, images_per_second=reading.images_per_second, data_wait=reading.data_wait,
        target_cosine=cosine, memory_bytes=memory_bytes(), skipped_steps=run.health.skipped,
        bad_records=run.bad_records.count,
    )  # fmt: skip


def log_events(run: Run, log: RunLog, done: int, result: StepResult) -> None:
    """What happened in this step and cannot wait for the next line: skipped steps, loss spikes."""
    for event in result.events:
        log.info(event.text)
        log.metrics(event.kind, step=done, epoch=run.plan.epoch(done - 1), **event.fields)
