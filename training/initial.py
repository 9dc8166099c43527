"""What a run starts from: weights of another run. Resuming a run's own state is training/state.py's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backbones import load_weights
from eval.embedder import find_weights
from training.init_report import INIT_REPORT, compare_weights
from training.initial_head import load_initial_head
from training.run import Run
from utils.checkpoint import CheckpointError
from utils.files import write_text_whole


def load_initial_weights(run: Run) -> list[str]:
    """Starts the backbone from `config.init_from` and the prototypes from `config.init_head_from`; collective.

    What was loaded, skipped and left as initialised is written to init_report.json in the run's folder.

    Returns:
        Lines for the log: the same in words.

    Raises:
        CheckpointError: nothing fits, the weights are not finite, or the prototypes do not fit.
    """
    if run.config.init_from is None and run.config.init_head_from is None:
        return []
    backbone, lines = _load_backbone(run)
    prototypes, more = load_initial_head(run)
    if run.ranks.is_main and run.config.output:
        folder = Path(run.config.output)
        folder.mkdir(parents=True, exist_ok=True)
        report = {"backbone": backbone, "prototypes": prototypes}
        write_text_whole(json.dumps(report, indent=1) + "\n", folder / INIT_REPORT)
    return [*lines, *more]


def _load_backbone(run: Run) -> tuple[dict[str, Any] | None, list[str]]:
    """Takes the tensors that fit by name and shape; what became of all, for JSON on the main rank and in words."""
    if run.config.init_from is None:
        return None, []
    path = find_weights(run.config.init_from, checkpoint="last")
    given = load_weights(path)
    report = compare_weights(path, given, run.backbone)
    if not any(tensor.dim() > 1 for tensor in report.fitting.values()):
        shapes = [f"{name} {tuple(there)}, here {tuple(here)}" for name, there, here in report.reshaped]
        found = (
            f"the shapes differ: {'; '.join(shapes[:3])}"
            if shapes
            else f"its first names are {', '.join(list(given)[:3])}, those here "
            f"{', '.join(list(run.backbone.state_dict())[:3])}"
        )
        whose = f"network={report.found['network']}" if report.found else "the network it was saved from"
        raise CheckpointError(
            f"init_from: {path} has no weights of network {run.config.network!r}: {found}. Choose {whose}"
        )
    if report.not_finite:
        raise CheckpointError(
            f"init_from: {path}: {len(report.not_finite)} tensors hold NaN or infinity, first {report.not_finite[0]}: "
            "training cannot mend that. Take weights of an earlier step"
        )
    run.backbone.load_state_dict(report.fitting, strict=False)
    return report.to_dict() if run.ranks.is_main else None, report.lines()
