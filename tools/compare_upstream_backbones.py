"""Proof that our backbones are arcface_torch's (parameter list, outputs, gradients) against a local clone of its code.

    python -m tools.compare_upstream_backbones --arcface-torch insightface/recognition/arcface_torch

It imports the clone's two backbone files. No part of training or export depends on it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from backbones import build_backbone

NETWORKS = ("r18", "r34", "r50", "r100", "r200", "mbf")
# Our nets run the same operations in the same order, so only the rounding of a reordered sum may differ.
TOLERANCE = 1e-5


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the nets and print one line for each; returns 0 where all agree, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_upstream_backbones", description=__doc__)
    parser.add_argument("--arcface-torch", type=Path, required=True, metavar="DIR", help="recognition/arcface_torch")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="comma-separated, default: %(default)s")
    parser.add_argument("--batch", type=int, default=4, help="images, at least 2 (default: %(default)s)")
    parser.add_argument("--commit", help="commit of the clone; read from git where it is one")
    parser.add_argument("--write-keys", type=Path, metavar="FILE", help="write the parameter list as JSON")
    options = parser.parse_args(arguments)
    names = options.networks.split(",")
    upstream = {name: build_upstream(options.arcface_torch, name) for name in names}
    commit = options.commit or _commit_of(options.arcface_torch)
    print(f"arcface_torch {commit}, torch {torch.__version__}, batch {options.batch}, relative to the largest value")
    print(f"{'network':8}{'keys':>6}{'train':>12}{'statistics':>12}{'gradients':>12}{'eval':>12}")
    is_equal = True
    for name, theirs in upstream.items():
        ours = build_backbone(name)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        figures = compare(ours, theirs, options.batch)
        is_equal &= all(figure <= TOLERANCE for figure in figures.values())
        print(f"{name:8}{len(theirs.state_dict()):6}" + "".join(f"{figure:12.2e}" for figure in figures.values()))
    if options.write_keys:
        shapes = {name: fold_keys(shapes_of(net)) for name, net in upstream.items()}
        document = {"source": "insightface recognition/arcface_torch", "commit": commit, "networks": shapes}
        options.write_keys.write_text(json.dumps(document, indent=0) + "\n", encoding="utf-8")
        print(f"wrote {options.write_keys}")
    print("equal" if is_equal else f"NOT equal: a figure is above {TOLERANCE}")
    return 0 if is_equal else 1


def build_upstream(folder: Path, name: str) -> nn.Module:
    """Build the clone's net with fresh weights, embedding size 512.

    Raises:
        SystemExit: the folder holds no such code.
    """
    file = folder / "backbones" / ("mobilefacenet.py" if name == "mbf" else "iresnet.py")
    if not file.is_file():
        raise SystemExit(f"{file} does not exist: --arcface-torch must name insightface's recognition/arcface_torch")
    module = _import_file(file)
    torch.manual_seed(0)
    net = module.get_mbf(False, 512) if name == "mbf" else getattr(module, f"iresnet{name[1:]}")()
    return cast(nn.Module, net)


def compare(ours: nn.Module, theirs: nn.Module, batch: int) -> dict[str, float]:
    """Largest differences between two nets of equal weights, each divided by the largest value compared.

    Args:
        ours: one net.
        theirs: the other, with the same state dict.
        batch: images in the random batch, at least 2.

    Returns:
        "train" and "eval": embeddings in that mode; "statistics": buffers after one training pass;
        "gradients": of all parameters.
    """
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 3, 112, 112, generator=generator) * 2 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the clone calls torch.cuda.amp.autocast
        our_output, their_output = ours.train()(images), theirs.train()(images)
    figures = {"train": _difference(our_output, their_output)}
    their_buffers = dict(theirs.named_buffers())
    figures["statistics"] = max(_difference(value, their_buffers[key]) for key, value in ours.named_buffers())
    weight = torch.randn(our_output.shape, generator=generator)
    (our_output * weight).sum().backward()
    (their_output * weight).sum().backward()
    their_parameters = dict(theirs.named_parameters())
    figures["gradients"] = max(
        _difference(value.grad, their_parameters[key].grad)
        for key, value in ours.named_parameters()
        if value.requires_grad or their_parameters[key].requires_grad
    )
    figures["eval"] = _difference(_settled_output(ours, images), _settled_output(theirs, images))
    return figures


def _settled_output(net: nn.Module, images: Tensor) -> Tensor:
    """Embeddings in eval mode with the batch's own statistics; with fresh ones r100 overflows float32."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net.train()(images)
        output: Tensor = net.eval()(images)
    return output


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a net's state dict."""
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def fold_keys(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Write equal blocks as one line: "layer3.1-25.bn1.bias" -> "256"; undone by ``unfold_keys``.

    Args:
        shapes: key -> shape; at most the second part of a key ("layer3.17.bn1.bias") or the third
            ("layers.3.layers.2...") counts blocks.
    """
    blocks: dict[tuple[str, str, str], list[int]] = {}
    for key, shape in shapes.items():
        head, number, tail = _split_at_block(key)
        blocks.setdefault((head, tail, "x".join(map(str, shape))), []).append(number)
    folded: dict[str, str] = {}
    for (head, tail, shape_text), numbers in blocks.items():
        if not tail:
            folded[head] = shape_text
            continue
        for first, last in _ranges(numbers):
            folded[f"{head}{first}-{last}{tail}"] = shape_text
    return folded


def unfold_keys(folded: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Key -> shape from the lines of ``fold_keys``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for line, text in folded.items():
        shape = tuple(int(size) for size in text.split("x")) if text else ()
        match = re.search(r"(\d+)-(\d+)", line)
        if match is None:
            shapes[line] = shape
            continue
        for number in range(int(match[1]), int(match[2]) + 1):
            shapes[line[: match.start()] + str(number) + line[match.end() :]] = shape
    return shapes


def _split_at_block(key: str) -> tuple[str, int, str]:
    """("layer3.", 17, ".bn1.bias"); a key outside blocks comes back whole, with an empty tail."""
    match = re.match(r"(layer\d\.|layers\.\d+\.layers\.)(\d+)(\..*)", key)
    return (match[1], int(match[2]), match[3]) if match else (key, 0, "")


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _difference(ours: Tensor | None, theirs: Tensor | None) -> float:
    """Largest |ours - theirs| over the largest |theirs|; infinite where only one of them exists."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else float("inf")
    gap = (ours.double() - theirs.double()).abs().max().item()
    return gap / max(theirs.double().abs().max().item(), 1e-30)


def _import_file(file: Path) -> ModuleType:
    spec: Any = importlib.util.spec_from_file_location(f"arcface_torch_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _commit_of(folder: Path) -> str:
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    sys.exit(main())
