"""Kills training at random moments until it has survived so many, and compares it with training left alone.

    python -m tests.kill_campaign [--kills 100] [--ranks 1,2,3] [--seed 0] [--steps 240] [--interval 7] [--results FILE]

Every start is what a user would type (`python train.py ... resume=True`, or torchrun for several ranks). SIGKILL hits
one random rank or all processes at once: during the start, at uniformly random moments of the steps, or while
a checkpoint is being written. Takes about half an hour on two cores; a small one is part of the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import surroundings, table
from tests.kill_campaign.compare import Remains, check_checkpoints, differences, logged_steps, remains_of, steps_lost
from tests.kill_campaign.lives import Aim, CampaignError, Plan, live
from utils.checkpoint import complete_checkpoints

# Everything that a resumed run could get wrong: dropout, batch normalisation, momentum, sampled classes, augmentation,
# micro-batches, a schedule that warms up; with as many steps on any number of ranks.
CONFIG = """
from easydict import EasyDict as edict
config = edict()
config.rec = "synthetic:40:{images}"
config.network, config.embedding_size, config.dropout = "tiny", 32, 0.2
config.head, config.head_options, config.sample_rate = "arcface", {{"scale": 16.0}}, 0.5
config.batch_size, config.gradient_acc, config.num_epoch, config.lr, config.warmup_epoch = 4, 2, 2, 0.05, 0.5
config.augmentation, config.momentum, config.margin_warmup_epochs = "pad_crop_flip", 0.9, 1.0
config.checkpoint_interval, config.frequent, config.threads, config.num_workers = {interval}, 1, 1, 0
"""
WAYS: tuple[tuple[bool, int], ...] = ((True, 0), (False, 0), (True, 1), (False, 2))  # async_save, num_workers


@dataclass
class Tally:
    """What is counted for one number of ranks and one way of saving."""

    ranks: int
    async_save: bool
    runs: int = 0
    kills: int = 0
    of_one_rank: int = 0
    during_saving: int = 0
    resumes: int = 0
    most_lost: int = 0
    equal: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaign, prints its table; 1 where a run differs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kill_campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="of all numbers of ranks together")
    parser.add_argument("--ranks", default="1,2,3", help="numbers of ranks, each with its share of the kills")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims")
    parser.add_argument("--steps", type=int, default=240, help="of one run; even")
    parser.add_argument("--interval", type=int, default=7, help="steps between checkpoints")
    parser.add_argument("--results", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.ranks.split(",")]
    start, tallies = time.monotonic(), []
    for index, ranks in enumerate(counts):
        share = options.kills // len(counts) + (index < options.kills % len(counts))
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            tallies += campaign(
                Path(folder), ranks, share, random.Random(f"{options.seed}/{ranks}"), options.steps, options.interval
            )
    text = report(tallies)
    minutes = (time.monotonic() - start) / 60
    print(f"\n{text}\n{sum(tally.kills for tally in tallies)} kills in {minutes:.0f} minutes, seed {options.seed}")
    if options.results:
        content = {**surroundings(), "arguments": vars(options), "markdown": text, "runs": list(map(asdict, tallies))}
        options.results.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    return 0 if all(tally.equal == tally.runs for tally in tallies) else 1


def campaign(folder: Path, ranks: int, kills: int, rng: random.Random, steps: int, interval: int) -> list[Tally]:
    """Kills runs on `ranks` ranks until `kills` have hit; each run lives on to its end.

    Raises:
        CampaignError: a run failed by itself, a checkpoint that counts is not whole, or too many steps were lost.
    """
    config = folder / "campaign.py"
    config.write_text(CONFIG.format(images=4 * 2 * ranks * steps // 2, interval=interval))
    live(config, ranks, folder / "whole", ["async_save=False"], None, rng)
    whole = remains_of(folder / "whole")
    tallies: dict[bool, Tally] = {}
    number, ways = 0, rng.sample(WAYS, len(WAYS))
    while sum(tally.kills for tally in tallies.values()) < kills:
        async_save, workers = ways[number % len(ways)]
        tally = tallies.setdefault(async_save, Tally(ranks, async_save))
        left = kills - sum(other.kills for other in tallies.values())
        one_run(config, folder / f"run{number}", whole, tally, left, workers, rng, steps, interval)
        number += 1
    survive_damage(config, folder / f"run{number - 1}", whole, ranks, steps, rng)
    return list(tallies.values())


def survive_damage(
    config: Path, output: Path, whole: Remains, ranks: int, steps: int, rng: random.Random
) -> None:  # fmt: skip
    """Flips one bit in the biggest file of the newest checkpoint of a run that has ended, and resumes.

    Raises:
        CampaignError: not the checkpoint before it was used, with one line that says why, or the end differs.
    """
    newest, before = complete_checkpoints(output / "checkpoints")[::-1][:2]
    path = max(newest.iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    bit = rng.randrange(len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    text = live(config, ranks, output, [], None, rng).output
    lines = [line for line in text.splitlines() if "damaged" in line]
    found = differences(whole, remains_of(output), steps)
    expected = f"resume: {newest.name} is damaged (the content of {path.name} was changed"
    if len(lines) != 1 or not lines[0].startswith(expected) or f"resumed from {before}:" not in text or found:
        raise CampaignError(f"bit {bit} of {path} flipped: {lines}, {found}:\n{text[-2000:]}")
    print(f"{ranks} rank(s), bit {bit} of {path.name} flipped: {before.name} was used, equal", flush=True)


def one_run(
    config: Path, output: Path, whole: Remains, tally: Tally, kills: int, workers: int, rng: random.Random,
    steps: int, interval: int,
) -> None:  # fmt: skip
    """One run from its first step to its last, in as many lives as it takes; at most `kills` of them end early."""
    arguments = [f"async_save={tally.async_save}", f"num_workers={workers}"]
    # With asynchronous saving the steps taken while a checkpoint is written are lost with it.
    limit = 2 * interval - 1 if tally.async_save else interval
    killed, lives, alive = 0, 0, True
    while alive:
        check_checkpoints(output)
        logged = logged_steps(output)
        # Mostly while steps are taken: a start is long, and nothing is at stake in it.
        aim: Aim = rng.choices(("start", "steps", "saving"), (1, 4, 4))[0]
        plan = Plan(aim, rng.random() < 0.5, 6.0 if aim == "start" else steps / 60)  # a step takes 50 ms or so
        death = live(config, tally.ranks, output, arguments, plan if killed < kills else None, rng)
        lost = steps_lost(int(logged[-1][0]) if logged else 0, death.output) if lives else 0
        if lost is not None and lost > limit:
            raise CampaignError(f"{lost} steps lost, at most {limit} may be:\n{death.output[-2000:]}")
        tally.resumes += lives > 0 and lost is not None
        tally.most_lost = max(tally.most_lost, lost or 0)
        alive, lives = death.killed, lives + 1
        killed += death.killed
        tally.kills += death.killed
        tally.of_one_rank += death.one_rank
        tally.during_saving += death.during_saving
        where = "killed while saving" if death.during_saving else "killed" if death.killed else "ended"
        print(f"{tally.ranks} rank(s), {output.name}, life {lives}: {where}; steps lost before: {lost}", flush=True)
    found = differences(whole, remains_of(output), steps)
    tally.runs += 1
    tally.equal += not found
    for line in found[:5]:
        print(f"NOT EQUAL: {line}", flush=True)


def report(tallies: Sequence[Tally]) -> str:
    """Markdown."""
    headings = [
        "ranks", "saving", "runs", "kills", "of one rank", "while saving", "resumes", "steps lost at most", "equal",
    ]  # fmt: skip
    rows = [
        [
            str(tally.ranks), "in the background" if tally.async_save else "between steps", str(tally.runs),
            str(tally.kills), str(tally.of_one_rank), str(tally.during_saving), str(tally.resumes),
            str(tally.most_lost), f"{tally.equal} of {tally.runs}",
        ]
        for tally in tallies
    ]  # fmt: skip
    return table(headings, rows)


if __name__ == "__main__":
    sys.exit(main())
