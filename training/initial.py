"""What a run starts from: weights of another run. Resuming a run's own state is training/state.py's."""

from __future__ import annotations

from torch import Tensor

from backbones import load_weights
from eval.embedder import find_weights
from training.build import Run
from training.initial_head import load_initial_head
from utils.checkpoint import CheckpointError


def load_initial_weights(run: Run) -> list[str]:
    """Starts the backbone from `config.init_from` and the prototypes from `config.init_head_from`; collective.

    Returns:
        Lines for the log: what was taken and what was not.

    Raises:
        CheckpointError: nothing fits, or the prototypes do not.
    """
    return [*_load_backbone(run), *load_initial_head(run)]


def _load_backbone(run: Run) -> list[str]:
    """Takes the tensors that fit by name and shape."""
    if run.config.init_from is None:
        return []
    path = find_weights(run.config.init_from, checkpoint="last")
    given, own = load_weights(path), run.backbone.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    shapes = [
        f"{name} {tuple(tensor.shape)}, here {tuple(own[name].shape)}"
        for name, tensor in given.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if not any(isinstance(tensor, Tensor) and tensor.dim() > 1 for tensor in fitting.values()):
        found = (
            f"the shapes differ: {'; '.join(shapes[:3])}"
            if shapes
            else f"its first names are {', '.join(list(given)[:3])}, those here {', '.join(list(own)[:3])}"
        )
        raise CheckpointError(
            f"init_from: {path} has no weights of network {run.config.network!r}: {found}. Choose the network it was "
            "saved from"
        )
    run.backbone.load_state_dict(fitting, strict=False)
    lines = [f"init_from: {len(fitting)} of {len(own)} tensors taken from {path}"]
    missing = [name for name in own if name not in given]
    unused = [name for name in given if name not in own]
    for label, names in (("left as initialised", missing), ("not used", unused), ("of another shape", shapes)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            lines.append(f"init_from: {label}: {', '.join(names[:5])}{more}")
    return lines
