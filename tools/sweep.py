"""`python -m tools.sweep`: one config, the product of some values and seeds, one table. Trains through train.py."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.sweep_plan import SweepError, Trial, check_plan, parse_vary, trials_of
from tools.sweep_table import csv_text, draw, is_done, markdown, read_trial, summarise
from utils.command_line import DONE, FOUND, INTERRUPTED, Outcome, command_parser, run_command, say
from utils.distributed import available_cores
from utils.files import write_text_whole

ROOT = Path(__file__).resolve().parent.parent
POLL = 0.5  # seconds between looks at the runs
EXAMPLES = (
    "python -m tools.sweep configs/digits_softmax --vary head=softmax,virtual_softmax,svsoftmax --seeds 3",
    "python -m tools.sweep configs/mnist_quarter --vary head_options.margin=0,0.25,0.5,1 head=soft_margin",
    "python -m tools.sweep configs/mnist_quarter --vary network_options.width=0.125,0.25,0.5 --table",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = command_parser(
        "python -m tools.sweep",
        "Train a config for every combination of some values and for several seeds; then a table of mean, standard "
        "deviation and number of runs, as Markdown, CSV and JSON, and a figure where one varied key is a number. Give "
        "the same command again to go on: finished runs stay, an interrupted one is resumed.",
        EXAMPLES,
    )
    parser.add_argument("config", help="configs/NAME or a path, as for train.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of all runs")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="KEY=V1,V2,...",
        help="values of one key, several times for their product; commas within brackets or quotes do not part values",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each combination, with seeds 1 .. N")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; they share the cores")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: work_dirs/sweeps/NAME of the config")
    parser.add_argument("--table", action="store_true", help="train nothing, tell what is there")
    options = parser.parse_intermixed_args(arguments)
    return run_command(options, lambda: _run(options), (SweepError, OSError))


def _run(options: argparse.Namespace) -> Outcome:
    if options.seeds < 1 or options.jobs < 1:
        raise SweepError(f"--seeds {options.seeds} --jobs {options.jobs}: both must be at least 1")
    folder: Path = options.out or Path("work_dirs") / "sweeps" / Path(options.config).stem
    varied = dict(parse_vary(text) for text in options.vary)
    trials = trials_of(folder, varied, options.seeds)
    check_plan(folder, options.config, options.overrides, write=not options.table)
    failed: list[Trial] = []
    status = DONE
    if not options.table:
        failed, status = _train_all(options, trials)
    rows = summarise([(trial, read_trial(trial.folder)) for trial in trials])
    words = [f"{trial.name}: failed, see {trial.log}" for trial in failed]
    if folder.is_dir():
        write_text_whole(markdown(varied, rows) + "\n", folder / "table.md")
        write_text_whole(csv_text(varied, rows), folder / "table.csv")
        write_text_whole(json.dumps(rows, indent=1, allow_nan=False) + "\n", folder / "table.json")
        pictures = draw(folder, varied, rows)
        words += [
            "",
            markdown(varied, rows),
            "",
            f"{folder}: table.md, table.csv, table.json" + ", ".join(["", *pictures]),
        ]
    facts = {"folder": folder, "rows": rows, "failed": [trial.name for trial in failed]}
    return Outcome("\n".join(words).strip(), facts, FOUND if failed and status == DONE else status)


def _train_all(options: argparse.Namespace, trials: list[Trial]) -> tuple[list[Trial], int]:
    """Trains what is not finished; a run that fails does not end the others. Returns those and an exit status."""
    waiting = [trial for trial in trials if not is_done(trial.folder)]
    say(options, f"{len(trials)} runs, {len(trials) - len(waiting)} of them finished before")
    running: dict[Trial, subprocess.Popen[bytes]] = {}
    failed: list[Trial] = []
    stopped = False
    total, started = len(waiting), time.monotonic()

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while (waiting and not stopped) or running:
            while waiting and len(running) < options.jobs and not stopped:
                trial = waiting.pop(0)
                running[trial] = _start(options, trial)
            time.sleep(POLL)
            if stopped:
                for process in running.values():  # a run saves, and then ends by itself
                    process.send_signal(signal.SIGTERM)
            for trial in [trial for trial, process in running.items() if process.poll() is not None]:
                code = running.pop(trial).returncode
                if code == 0:
                    left = len(waiting) + len(running)
                    seconds = (time.monotonic() - started) / (total - left) * left
                    say(options, f"{trial.name}: done; {left} left, about {seconds / 60:.0f} min")
                elif not stopped:
                    failed.append(trial)
                    say(options, f"{trial.name}: failed with status {code}, see {trial.log}")
            if stopped and running:
                time.sleep(1.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return failed, INTERRUPTED if stopped else DONE


def _start(options: argparse.Namespace, trial: Trial) -> subprocess.Popen[bytes]:
    """Starts a run in a process of its own; whatever it prints goes to a file."""
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, available_cores() // options.jobs)
    given = [item for item in options.overrides if item.startswith("threads=")]
    arguments = [*options.overrides, *trial.overrides, f"output={trial.folder.absolute()}", "resume=True"]
    arguments += [] if given else [f"threads={threads}"]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    with trial.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), options.config, *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,  # Ctrl-C is passed on once, by this process
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
