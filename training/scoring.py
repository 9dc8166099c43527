"""Scores in the course of a run: when they are due, verification on all sets, the best backbone. No formula here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from eval.classification_files import Prototypes
from eval.pair_metrics import PairResult
from eval.pairs import PairSet
from eval.saved_scores import SavedScoresError, write_scores
from eval.verification import verification_record, verify
from training.classify_run import classify_run, write_run_prototypes
from training.run import Run
from training.scored_data import ClassifiedImages, PairSets
from training.state import save_model
from training.step import refuse_bad_weights
from utils.distributed import average_buffers
from utils.logging import RunLog


def is_due(run: Run, done: int) -> bool:
    """Every `verbose` steps, or with 0 at each epoch's end; always at the end of the run."""
    interval = run.config.verbose
    at_interval = done % interval == 0 if interval else run.plan.ends_epoch(done)
    return at_interval or done == run.plan.total_steps


def score_run(run: Run, log: RunLog, done: int) -> None:
    """Scores the backbone by the run's task, on all ranks, and keeps it as best.pt where it is the best; collective.

    Raises:
        NonFiniteError: weights that are not worth scoring.
        DataError: an image that cannot be read. CheckpointError: on all ranks, where writing failed.
    """
    refuse_bad_weights(run, done)
    average_buffers(run.backbone)
    score: float | None
    prototypes: Prototypes | None = None
    if isinstance(run.scored, ClassifiedImages):
        score, prototypes = classify_run(run, run.scored.source, log, done)
    else:
        score = _verify_run(run, run.scored, log, done)
    if score is None:
        return
    run.last_score = (done, score)
    if done > 0 and (run.best_score is None or score > run.best_score):
        run.best_score = score
        save_model(run, "best.pt")
        if prototypes is not None:
            write_run_prototypes(run, prototypes, "best")


def _verify_run(run: Run, pair_sets: PairSets, log: RunLog, done: int) -> float | None:
    """Mean accuracy on all verification sets; None where there are none."""
    scores = []
    for pair_set in pair_sets.sets:
        start = time.perf_counter()
        results = verify(run.backbone, pair_set, device=run.ranks.device, image_format=run.source.image_format)
        seconds = time.perf_counter() - start
        for result in results:
            record = verification_record(result, pair_set, flip=True, seconds=seconds)
            log.metrics("verification", step=done, epoch=run.plan.epoch(done), **record)
        log.info(f"step {done} | {pair_set.name}: {result_words(results)} | {seconds:.1f} s")
        scores.append(results[0].accuracy)
        if done == run.plan.total_steps and run.ranks.is_main:
            _keep_scores(run, log, done, pair_set, results[0])
    return sum(scores) / len(scores) if scores else None


def result_words(results: Sequence[PairResult]) -> str:
    """The accuracy of each protocol, and the AUC, which pairs of one kind do not have."""
    accuracies = ", ".join(f"{r.protocol} {r.accuracy:.2%} +- {r.accuracy_std:.2%}" for r in results)
    auc = results[0].auc
    return f"{accuracies}, AUC {'n/a' if auc is None else f'{auc:.4f}'}"


def _keep_scores(run: Run, log: RunLog, done: int, pair_set: PairSet, result: PairResult) -> None:
    """Leaves the last scores and the hardest pairs for the report; some milliseconds on the main rank."""
    folder = Path(run.config.output or "") / "verification"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder, pair_set.name, pair_set, result, origin=f"training's last verification, step {done}")
    except (OSError, SavedScoresError) as error:  # the weights are still to be saved: a report's part is worth less
        log.info(f"{pair_set.name}: its scores are not kept for the report: {error}")
