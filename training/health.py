"""What a run remembers of its bad steps: how many were skipped, and where the loss stood. No tensors, no ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.spikes import SpikeDetector


@dataclass(frozen=True)
class Event:
    """Something that a step wants told at once, whatever the interval of log lines.

    Attributes:
        kind: of the line in metrics.jsonl: "skip" or "spike".
        text: one line for people.
        fields: for metrics.jsonl.
    """

    kind: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


class Health:
    """Counts skipped steps and watches the loss; the same on all ranks, and saved with the run.

    Args:
        loss_spike: standard deviations above the recent mean that make a spike; 0 looks for none.

    Attributes:
        skipped: steps of the whole run that were left out for a number that was not finite, overflows included.
        in_a_row: those since the last good step, fp16 overflows not counted: they have a remedy of their own.
    """

    def __init__(self, loss_spike: float = 0.0) -> None:
        self.skipped = self.in_a_row = 0
        self._spikes = SpikeDetector(loss_spike)

    def skip(self, *, is_overflow: bool = False) -> None:
        """One more step without an update."""
        self.skipped += 1
        self.in_a_row += not is_overflow

    def good_step(self, step: int, loss: float) -> tuple[Event, ...]:
        """One step with an update.

        Returns:
            The spike that its loss is, if it is one.
        """
        self.in_a_row = 0
        level = self._spikes.level
        height = self._spikes.add(loss)
        if height is None:
            return ()
        text = (
            f"step {step}: loss spike: {loss:.4g}, {height:.1f} standard deviations above the recent mean {level:.4g}"
        )
        return (Event("spike", text, {"loss": loss, "mean": level, "deviations": height}),)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "spikes": self._spikes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a saved state; an empty one, of a run that did not count, leaves the start."""
        self.skipped, self.in_a_row = int(state.get("skipped", 0)), int(state.get("in_a_row", 0))
        if "spikes" in state:
            self._spikes.load_state_dict(state["spikes"])
