"""The story of one run: check, build, loop, verify, save, report. The parts are training/'s; nobody imports this file.

    python train.py configs/NAME [key=value ...]                             CPU or one GPU
    torchrun --nproc_per_node=N train.py configs/NAME [key=value ...]        N processes, on one node or many

`--check` reads a sample, takes two steps, tells what the run will take, and leaves nothing; `--device cpu` leaves the
GPUs alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from backbones import BACKBONES, WeightsError
from eval.embedder import EmbedderError
from eval.pair_metrics import VerificationError
from eval.report import write_report
from losses import HEADS, REGULARIZERS
from training.build import build_run, build_stream
from training.check import check_run
from training.class_match import write_class_names
from training.determinism import DeterminismError, determinism
from training.initial import load_initial_weights
from training.inputs import Inputs
from training.preflight import inspect_run
from training.provenance import write_provenance
from training.run import Run
from training.scoring import is_due, score_run
from training.state import Resumed, claim_folder, resume_run, save_model, save_run
from training.step import NonFiniteError, train_step
from training.telling import log_events, log_step, summary
from utils.bad_records import ReaderError
from utils.checkpoint import CheckpointError
from utils.config import Config, ConfigError, load_config
from utils.distributed import RankError, Ranks, StopSignal, start_ranks, stop_ranks
from utils.errors import DataError
from utils.launcher import adopt_slurm, is_begun, leave, past_failure, tell_failure
from utils.logging import RunLog, trim_metrics
from utils.memory import prefer_huge_pages
from utils.pace import Mean, Pace
from utils.watchdog import Watchdog, collective_timeout

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
    DeterminismError,
)
STOPPED = 128 + 15  # exit status after SIGTERM, as a shell reports it


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 done, 1 failed while running, 2 refused before it began, 143 stopped and saved."""
    options = parse(arguments)
    prefer_huge_pages()
    adopt_slurm()
    is_main, world_size = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", "1"))
    try:
        config = load_config(
            options.config, options.overrides, heads=HEADS, backbones=BACKBONES, regularizers=REGULARIZERS
        )
        config = replace(config, resume=config.resume or is_begun())
        inputs = inspect_run(config, device=options.device, world_size=world_size, is_thorough=options.check)
        problems = past_failure() or "\n".join(inputs.problems)
    except ConfigError as error:
        problems = str(error)
    if problems:
        if is_main:
            print(problems, file=sys.stderr, flush=True)
        else:
            time.sleep(5)  # the launcher ends all ranks with the first: let the main one speak first where it can
            print(f"rank {os.environ['RANK']}: {problems}", file=sys.stderr, flush=True)
        return 2
    with determinism(config.deterministic):
        if options.check:
            return check_run(config, inputs, options.device, summary(config, inputs))
        patience = collective_timeout(config.hang_timeout)
        ranks = start_ranks(options.device, config.threads, timeout=patience)
        status = train(config, inputs, ranks, arguments)
        stop_ranks()
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; every key of the config is an argument of the form key=value."""
    parser = argparse.ArgumentParser(description="Train a face-recognition backbone.")
    parser.add_argument(
        "config",
        help="configs/NAME or a path: .py (code that is run), .yaml or .json (data); keys: `python -m utils.config`",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="take precedence over the config file")
    parser.add_argument("--check", action="store_true", help="check everything, take two steps, estimate the run")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPUs where torch sees any")
    return parser.parse_intermixed_args(arguments)


def train(config: Config, inputs: Inputs, ranks: Ranks, arguments: Sequence[str]) -> int:
    """One run from its first (or next) step to its end, on this rank; returns the exit status."""
    stop = StopSignal()
    with Watchdog(config.hang_timeout, ranks, Path(config.output or "")) as watchdog:
        run = build_run(config, ranks, inputs)
        first_step, lines = begin(run, arguments)
        plan, folder = run.plan, Path(run.config.output or "")
        with RunLog(
            folder, is_main=ranks.is_main, total_steps=plan.total_steps, first_step=first_step,
            max_log_size=config.max_log_size,
        ) as log:  # fmt: skip
            run.bad_records.say = log.info
            place = f"ranks: {ranks.world_size} on {ranks.device.type}"
            log.info("\n".join([summary(run.config, inputs), place, *config.notes, *lines]))
            is_done = run_steps(run, log, watchdog, stop, first_step)
            if is_done:
                watchdog.beat("finishing", plan.total_steps)
                finish(run, log)
            return 0 if is_done else 1 if log.failure else STOPPED


def begin(run: Run, arguments: Sequence[str]) -> tuple[int, list[str]]:
    """Starts from other weights or goes on from a checkpoint; returns the first step and lines for the log."""
    claim_folder(run)
    resumed = resume_run(run) if run.config.resume else Resumed(0, 0, [])
    first_step, lines = resumed.first_step, resumed.lines
    if first_step == 0:
        lines += load_initial_weights(run)
    if run.ranks.is_main:
        trim_metrics(Path(run.config.output or ""), resumed.steps_done if first_step else -1)
    if first_step < run.plan.total_steps or not run.config.resume:
        write_provenance(run, arguments)
        write_class_names(run)
    else:
        save_model(run, "model.pt")  # a crash can come between the last checkpoint and this file
        lines.append("nothing is left to train; config.json and run.json stay those of the run")
    return first_step, lines


def run_steps(run: Run, log: RunLog, watchdog: Watchdog, stop: StopSignal, first_step: int) -> bool:
    """All steps from `first_step` on, with what is due between them; False where it was stopped, and has saved."""
    plan, config = run.plan, run.config
    if first_step == 0:
        watchdog.beat("verifying", 0)
        log.info("verifying the untrained net") if run.scored.num_images else None
        score_run(run, log, 0)  # the untrained net: a broken verification shows now, not after an epoch
    watchdog.beat("waiting for data", first_step)
    stream, pace, losses = iter(build_stream(run, first_step)), Pace(), Mean()
    for step in range(first_step, plan.total_steps):
        watchdog.beat("waiting for data", step)
        with pace.waiting():
            batches = [next(stream) for _ in range(config.gradient_acc)]
        watchdog.beat("step", step)
        wants_stop = stop.requested or log.failure is not None
        result = train_step(run, batches, step, stop_requested=wants_stop, save_failed=run.saver.has_failed)
        pace.add(result.images)
        losses.add(result.loss)
        done = step + 1
        log_events(run, log, done, result)
        if done % config.frequent == 0 or done == plan.total_steps:
            log_step(run, log, done, result, losses.read(), pace.read(plan.total_steps - done))
        log.advance(done)
        if result.save_failed:
            retry_save(run, log, done)
        with pace.paused():
            if is_due(run, done):
                watchdog.beat("verifying", step)
                score_run(run, log, done)
            if done % config.checkpoint_interval == 0 or plan.ends_epoch(done) or result.stop_requested:
                watchdog.beat("saving", step)
                log.sync()
                save_run(run, done, wait=result.stop_requested or done == plan.total_steps)
        if result.stop_requested and done < plan.total_steps:
            cause = (
                "because the log cannot be written" if log.failure else f"by {stop.name or 'a signal to another rank'}"
            )
            log.info(f"stopped {cause} after step {done}; the same command with resume=True goes on from here")
            return False
    return True


def retry_save(run: Run, log: RunLog, done: int) -> None:
    """Saves once more, now while all wait, what the background could not; raises on all ranks where that fails too."""
    try:
        run.saver.wait()
    except CheckpointError as error:
        log.info(f"{error}. Saving again")
    save_run(run, done, wait=True)


def finish(run: Run, log: RunLog) -> None:
    """Writes the report and tells where the results are."""
    folder = Path(run.config.output or "")
    log.sync()
    if run.ranks.is_main:
        write_report(folder)
    best = "" if run.best_score is None else f", best.pt ({run.scored.best_by} {run.best_score:.2%})"
    log.info(f"done: {folder} holds model.pt{best}, report.html, checkpoints, metrics.jsonl and TensorBoard's events")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EXPECTED as error:
        if not isinstance(error, (CheckpointError, RankError, ReaderError)):  # a restart may mend these
            tell_failure(f"{type(error).__name__}: {error}")
        # No farewell to the other ranks, who may be waiting for this one: the launcher ends them.
        rank = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
        print(f"{rank}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        leave(1)
