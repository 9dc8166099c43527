"""What is in a weights file, and which nets there are: words or JSON. Changes no file and trains nothing."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from backbones import BACKBONES, WeightsError, backbone_info, build_backbone, infer_backbone, load_weights
from eval.embedder import CHECKPOINTS, EmbedderError, find_weights
from utils.command_line import DONE, FOUND, Outcome, add_json, examples_text, run_command
from utils.files import sha256_of

EXAMPLES = (
    "python -m tools.weights describe work_dirs/my_run",
    "python -m tools.weights describe backbone.pth --json",
    "python -m tools.weights list",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for a file whose weights fit no net or are not finite, 2 for one that is none."""
    options = _parse(arguments)

    def work() -> Outcome:
        return list_nets() if options.command == "list" else describe(options.model, options.checkpoint)

    return run_command(options, work, (WeightsError, EmbedderError, OSError))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.weights",
        description="Say what is in a weights file, or list the backbones.",
        epilog=examples_text(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="describe | list")
    describing = commands.add_parser("describe", help="what net a file belongs to, its sizes, its hash, damage")
    describing.add_argument("model", type=Path, help="a run folder, model.pt, or arcface_torch's backbone.pth")
    describing.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="of a run folder (default: best)")
    listing = commands.add_parser("list", help="all backbones with parameters and multiplications")
    for command in (describing, listing):
        add_json(command)
    return parser.parse_args(arguments)


def describe(model: Path, checkpoint: str = "best") -> Outcome:
    """What a weights file holds, and the net it belongs to.

    Raises:
        WeightsError, EmbedderError: there is no weights file, or it cannot be read.
    """
    path = find_weights(model, checkpoint)
    state = load_weights(path)
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    not_finite = [name for name, value in floats.items() if not bool(value.isfinite().all())]
    facts: dict[str, Any] = {
        "path": path,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "tensors": len(state),
        "numbers": sum(value.numel() for value in floats.values()),
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in floats.values()}),
        "not_finite": not_finite,
        **_net_of(state),
    }
    net = facts["network"]
    lines = [
        f"{path}: {facts['bytes'] / 1e6:.1f} MB, {len(state)} tensors, {facts['numbers']:,} numbers "
        f"({', '.join(facts['dtypes'])})",
        f"sha256 {facts['sha256']}",
        f"network {net}, embedding_size {facts['embedding_size']}, in_channels {facts['in_channels']}, "
        + "".join(f"{option} {value}, " for option, value in facts["options"].items())
        + f"{facts['parameters']:,} parameters"
        if net
        else f"no net: {facts['problem']}",
    ]
    if not_finite:
        lines.append(f"NaN or infinity in {len(not_finite)} tensors, first {not_finite[0]}")
    return Outcome("\n".join(lines), facts, DONE if net and not not_finite else FOUND)


def _net_of(state: dict[str, Tensor]) -> dict[str, Any]:
    try:
        network, sizes = infer_backbone(state)
    except WeightsError as error:
        return {"network": None, "problem": str(error)}
    with torch.device("meta"):
        net = build_backbone(network, **sizes)
    size = {key: sizes.pop(key) for key in ("embedding_size", "in_channels")}
    parameters = sum(value.numel() for value in net.parameters())
    return {"network": network, **size, "options": sizes, "parameters": parameters}


def list_nets() -> Outcome:
    """Every name of BACKBONES with what a net of 512 dimensions costs; nothing is given storage."""
    rows = [net_facts(name) for name in BACKBONES]
    lines = [f"{'network':22}{'image':>10}{'parameters':>14}{'GMAC':>8}"]
    lines += [
        f"{row['network']:22}{'x'.join(map(str, row['image'])):>10}{row['parameters']:14,}{row['gmac']:8.2f}"
        for row in rows
    ]
    return Outcome("\n".join(lines), {"embedding_size": 512, "nets": rows})


def net_facts(name: str) -> dict[str, Any]:
    """Parameters of a net of 512 dimensions, and billions of multiplications and additions for one image.

    Convolutions, linear layers and attention are counted, as torch's counter does; norms and activations are not.
    """
    channels = inspect.signature(BACKBONES[name]).parameters["in_channels"].default
    # The counter knows the plain form of attention only, not the CPU's fused one.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FakeTensorMode(), torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        net = build_backbone(name, in_channels=channels).eval()
        image = backbone_info(net).image_size
        net(torch.empty(1, channels, *image))
    parameters = sum(value.numel() for value in net.parameters())
    return {
        "network": name, "image": [*image, channels], "parameters": parameters,
        "gmac": counter.get_total_flops() / 2e9,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
