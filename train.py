"""The story of one run: check, build, loop, verify, save, report. The parts are training/'s; nobody imports this file.

    python train.py configs/NAME [key=value ...]                             CPU or one GPU
    torchrun --nproc_per_node=N train.py configs/NAME [key=value ...]        N processes, on one node or many

`--check` stops after the checks; `--device cpu` leaves the GPUs alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from backbones import BACKBONES, WeightsError
from eval.embedder import EmbedderError
from eval.pair_metrics import VerificationError
from eval.report import write_report
from eval.verification import verification_record, verify
from losses import HEADS, REGULARIZERS
from training.build import Run, build_run, build_stream
from training.initial import load_initial_weights
from training.preflight import Inputs, inspect_run
from training.provenance import write_provenance
from training.state import resume_run, save_model, save_run
from training.step import NonFiniteError, StepResult, refuse_bad_weights, target_cosine, train_step
from utils.checkpoint import CheckpointError
from utils.config import Config, ConfigError, load_config
from utils.distributed import RankError, Ranks, StopSignal, average_buffers, start_ranks, stop_ranks
from utils.errors import DataError
from utils.logging import Mean, Pace, Reading, RunLog, format_seconds, memory_bytes, trim_metrics
from utils.memory import prefer_huge_pages

# What a user can cause and mend: told in words, without a traceback.
EXPECTED = (
    ConfigError,
    DataError,
    RankError,
    CheckpointError,
    NonFiniteError,
    WeightsError,
    VerificationError,
    EmbedderError,
)
STOPPED = 128 + 15  # exit status after SIGTERM, as a shell reports it


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 done, 1 failed while running, 2 refused before it began, 143 stopped and saved."""
    options = parse(arguments)
    prefer_huge_pages()
    is_main, world_size = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", "1"))
    try:
        config = load_config(
            options.config, options.overrides, heads=HEADS, backbones=BACKBONES, regularizers=REGULARIZERS
        )
        inputs = inspect_run(config, device=options.device, world_size=world_size)
        problems = "\n".join(inputs.problems)
    except ConfigError as error:
        problems = str(error)
    if problems:
        if is_main:
            print(problems, file=sys.stderr, flush=True)
        else:
            time.sleep(5)  # the launcher ends all ranks with the first: let the one that speaks be first
        return 2
    if options.check:
        print(f"{summary(config, inputs)}\n" if is_main else "", end="")
        return 0
    ranks = start_ranks(options.device, config.threads)
    status = train(config, inputs, ranks, arguments)
    stop_ranks()
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; every key of the config is an argument of the form key=value."""
    parser = argparse.ArgumentParser(description="Train a face-recognition backbone.")
    parser.add_argument("config", help="configs/NAME or a path; `python -m utils.config` lists its keys")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="take precedence over the config file")
    parser.add_argument("--check", action="store_true", help="check everything, start nothing")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPUs where torch sees any")
    return parser.parse_intermixed_args(arguments)


def train(config: Config, inputs: Inputs, ranks: Ranks, arguments: Sequence[str]) -> int:
    """One run from its first (or next) step to its end, on this rank."""
    stop = StopSignal()
    run = build_run(config, ranks, inputs)
    folder, plan = Path(run.config.output or ""), run.plan
    lines = [*config.notes, *load_initial_weights(run)]
    first_step = 0
    if config.resume:
        resumed = resume_run(run)
        first_step, lines = resumed.first_step, lines + resumed.lines
        if ranks.is_main and first_step:
            trim_metrics(folder, resumed.steps_done)
    if first_step < plan.total_steps or not config.resume:
        write_provenance(run, arguments)
    else:
        lines.append("nothing is left to train; config.json and run.json stay those of the run")
    with RunLog(folder, is_main=ranks.is_main, total_steps=plan.total_steps, first_step=first_step) as log:
        log.info("\n".join([summary(run.config, inputs), f"ranks: {ranks.world_size} on {ranks.device.type}", *lines]))
        if first_step == 0:
            log.info("verifying the untrained net") if run.pair_sets else None
            verify_run(run, log, 0)  # the untrained net: a broken verification shows now, not after an epoch
        stream, pace, losses = iter(build_stream(run, first_step)), Pace(), Mean()
        for step in range(first_step, plan.total_steps):
            with pace.waiting():
                batches = [next(stream) for _ in range(config.gradient_acc)]
            result = train_step(run, batches, step, stop_requested=stop.requested)
            pace.add(result.images)
            losses.add(result.loss)
            done = step + 1
            if done % config.frequent == 0 or done == plan.total_steps:
                log_step(run, log, done, result, losses.read(), pace.read(plan.total_steps - done))
            log.advance(done)
            with pace.paused():
                if is_due(config.verbose, done, run):
                    verify_run(run, log, done)
                if done % config.checkpoint_interval == 0 or plan.ends_epoch(done) or result.stop_requested:
                    log.sync()
                    save_run(run, done)
            if result.stop_requested:
                log.info(f"stopped by a signal after step {done}; resume=True goes on from here")
                return STOPPED
        finish(run, log)
    return 0


def is_due(interval: int, done: int, run: Run) -> bool:
    """Verification every `interval` steps, or with 0 at each epoch's end; always at the end of the run."""
    at_interval = done % interval == 0 if interval else run.plan.ends_epoch(done)
    return at_interval or done == run.plan.total_steps


def verify_run(run: Run, log: RunLog, done: int) -> None:
    """Scores the backbone on all verification sets, on all ranks, and keeps it as best.pt where it is the best."""
    refuse_bad_weights(run, done)
    average_buffers(run.backbone)
    scores = []
    for pair_set in run.pair_sets:
        start = time.perf_counter()
        results = verify(run.backbone, pair_set, device=run.ranks.device)
        seconds = time.perf_counter() - start
        for result in results:
            record = verification_record(result, pair_set, flip=True, seconds=seconds)
            log.metrics("verification", step=done, epoch=run.plan.epoch(done), **record)
        log.info(
            f"step {done} | {pair_set.name}: "
            + ", ".join(f"{r.protocol} {r.accuracy:.2%} +- {r.accuracy_std:.2%}" for r in results)
            + f", AUC {results[0].auc:.4f} | {seconds:.1f} s"
        )
        scores.append(results[0].accuracy)
    score = sum(scores) / len(scores) if scores else None
    if score is not None and done > 0 and (run.best_score is None or score > run.best_score):
        run.best_score = score
        save_model(run, "best.pt")


def log_step(run: Run, log: RunLog, done: int, result: StepResult, loss: float, reading: Reading) -> None:
    """One line for people and one for machines."""
    cosine, plan = target_cosine(run), run.plan
    skipped = f" | overflow, loss scale {result.loss_scale:g} halved" if result.was_skipped else ""
    log.info(
        f"step {done}/{plan.total_steps} epoch {done / plan.steps_per_epoch:.2f}/{plan.num_epoch} | loss {loss:.4f} | "
        f"lr {result.lr:.3g} | target cosine {cosine:.3f} | {reading.images_per_second:.0f} images/s | "
        f"data wait {reading.data_wait:.0%} | ETA {format_seconds(reading.seconds_left)}{skipped}"
    )
    log.metrics(
        "train", step=done, epoch=plan.epoch(done - 1), loss=loss, lr=result.lr, grad_norm=result.grad_norm,
        loss_scale=result.loss_scale, images_per_second=reading.images_per_second, data_wait=reading.data_wait,
        target_cosine=cosine, memory_bytes=memory_bytes(),
    )  # fmt: skip


def finish(run: Run, log: RunLog) -> None:
    """Writes the report and tells where the results are."""
    folder = Path(run.config.output or "")
    log.sync()
    if run.ranks.is_main:
        write_report(folder)
    best = "" if run.best_score is None else f", best.pt (mean accuracy {run.best_score:.2%})"
    log.info(f"done: {folder} holds model.pt{best}, report.html, checkpoints, metrics.jsonl and TensorBoard's events")


def summary(config: Config, inputs: Inputs) -> str:
    """What a run will do, in a few lines."""
    source = inputs.source
    data = f"{len(source)} images of {source.num_classes} classes" if source is not None else "no data"
    targets = ", ".join(f"{pairs.name} ({len(pairs.is_same)} pairs)" for pairs in inputs.pair_sets) or "nothing"
    return (
        f"{config.name}: {config.network} ({config.embedding_size}) with {config.head} {config.head_options} on "
        f"{config.rec}: {data}; {config.num_epoch} epochs, {config.optimizer}, lr {config.lr:g}, batch "
        f"{config.batch_size} x {config.gradient_acc} per rank, {config.precision}; verified on {targets}; "
        f"writes {config.output}"
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EXPECTED as error:
        # No farewell to the other ranks, who may be waiting for this one: the launcher ends them.
        rank = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
        print(f"{rank}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
