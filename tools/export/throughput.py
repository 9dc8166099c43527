"""Images per second of onnxruntime and PyTorch on the same threads and batches, in turns; nothing is judged here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from eval.embedder import Embedder
from utils.turns import Summary, alternate, summarize

BATCHES = (1, 8, 32)
BASELINE = "PyTorch"
ROUNDS = 7
SECONDS = 0.3  # that a turn takes, at least


@dataclass(frozen=True)
class Speed:
    """One contestant at one batch size.

    Attributes:
        batch: images at a time.
        name: of the contestant.
        images_per_second: median over the rounds.
        slowest: of the rounds.
        fastest: of the rounds.
        ratio: median over the rounds of its speed divided by PyTorch's in the same round.
    """

    batch: int
    name: str
    images_per_second: float
    slowest: float
    fastest: float
    ratio: float

    def to_dict(self) -> dict[str, Any]:
        """The attributes."""
        return dict(self.__dict__)


def compare_speeds(
    embedders: Mapping[str, Embedder],
    images: Tensor,
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> list[Speed]:
    """From uint8 pixels to embeddings, normalisation included, whoever does it.

    Args:
        embedders: by name; BASELINE is one of them, and all use as many threads.
        images: uint8 (N, H, W, C), N at least the largest batch.
        batches: images at a time.
        rounds: each contestant has a turn in each.
        seconds: that a turn takes, at least.
    """
    found: list[Speed] = []
    for batch in batches:
        contestants = {name: _turn(embedder, images[:batch], seconds) for name, embedder in embedders.items()}
        summaries: dict[str, Summary] = summarize(alternate(contestants, rounds), BASELINE)
        found += [
            Speed(batch, name, one.median, one.smallest, one.largest, one.ratio) for name, one in summaries.items()
        ]
    return found


def words(speeds: Sequence[Speed], threads: int) -> str:
    """A line per batch and contestant."""
    lines = [f"images per second, {threads} {'thread' if threads == 1 else 'threads'}, median of {ROUNDS} rounds"]
    for one in speeds:
        spread = f"({one.slowest:.0f} to {one.fastest:.0f})"
        lines.append(
            f"batch {one.batch:3}  {one.name:<24}{one.images_per_second:8.1f} {spread:<14} {one.ratio:.2f} x PyTorch"
        )
    return "\n".join(lines)


def _turn(embedder: Embedder, images: Tensor, seconds: float) -> Callable[[], float]:
    def images_per_second() -> float:
        # outside the clock: threads of the one before, which spin on for a moment, and memory of another size
        embedder(images)
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds or not count:
            embedder(images)
            count += len(images)
        return count / spent

    return images_per_second
