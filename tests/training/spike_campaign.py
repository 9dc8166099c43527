"""How often the spike detector cries wolf and how often it sees the wolf: a campaign, not part of the suite.

    python -m tests.training.spike_campaign [--steps 1000000] [metrics.jsonl ...]

Falling losses with noise of several shapes, and the recorded losses of runs (best with `frequent=1`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.spikes import SpikeDetector

NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda draws, size: draws.normal(size=size),
    "gamma, shape 4": lambda draws, size: (draws.gamma(4, 1, size) - 4) / 2,
    "log-normal, 0.25": lambda draws, size: np.exp(0.25 * draws.normal(size=size)),
    "log-normal, 0.5": lambda draws, size: np.exp(0.5 * draws.normal(size=size)),
    "exponential": lambda draws, size: draws.exponential(size=size),
    "Student t, 5 degrees": lambda draws, size: draws.standard_t(5, size),
}
EVERY = 997  # steps between injected spikes
THRESHOLD = 6.0


def alarms(losses: np.ndarray) -> list[int]:
    """Steps at which a spike is told."""
    detector = SpikeDetector(THRESHOLD)
    return [step for step, loss in enumerate(losses) if detector.add(float(loss)) is not None]


def main() -> None:
    """Prints one line for each noise and each run."""
    parser = argparse.ArgumentParser(description="False alarms and found spikes of the spike detector.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("runs", nargs="*", type=Path, help="metrics.jsonl of runs")
    options = parser.parse_args()
    steps, draws = options.steps, np.random.default_rng(0)
    for name, draw in NOISES.items():
        noise = draw(draws, steps)
        losses = 1 + 9 * np.exp(-np.arange(steps) / (steps / 50)) + 0.3 * noise
        line = f"{name:22} false alarms per 100,000 steps: {len(alarms(losses)) / steps * 1e5:5.1f}"
        for height in (8, 10, 15):
            places = set(range(EVERY, min(steps, 100_000), EVERY))
            spoiled = losses[: min(steps, 100_000)].copy()
            spoiled[list(places)] += height * 0.3 * noise.std()
            line += f"; +{height} sd: {len(places & set(alarms(spoiled)))} of {len(places)}"
        print(line, flush=True)
    for path in options.runs:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        recorded = np.array([record["loss"] for record in records if record["kind"] == "train"], dtype=float)
        print(f"{path}: {len(recorded)} losses, alarms at {alarms(recorded)}")


if __name__ == "__main__":
    main()
