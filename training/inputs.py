"""What a run reads, opened once and looked at: handed from the preflight to `build_run`. Opens nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from dataset import Source
from training.resources import Sizes
from training.scored_data import PairSets, Scored


@dataclass
class Inputs:
    """What a run reads, opened once: by the preflight for `build_run`.

    Attributes:
        source: the training data, or None where it could not be opened.
        scored: what the run is scored on.
        problems: one line each, with what to do; a run must not start while there are any.
        findings: heading and line, for `--check` to tell.
        write_speed: bytes per second into the run's folder; 0 where it was not tried.
        sizes: of the run's tensors, None where the network is not known.
    """

    source: Source | None = None
    scored: Scored = field(default_factory=PairSets)
    problems: list[str] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)
    write_speed: float = 0.0
    sizes: Sizes | None = None

    def tell(self, heading: str, *lines: str) -> None:
        """Adds findings under a heading."""
        self.findings += [(heading, line) for line in lines]
