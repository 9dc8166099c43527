"""Proof that our backbones are arcface_torch's (parameter list, outputs, gradients) against a local clone of its code.

It imports the clone's three backbone files; that of the transformers asks timm for three small functions, for which
torch's stand in where timm is not there. No part of training or export depends on it. What the transformers
draw at random is switched off on both sides, and they are compared in float64.
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
from unittest.mock import patch

import torch
from torch import Tensor, nn

from backbones import build_backbone
from backbones.vit import NETS, SIZES
from utils.command_line import DONE, FOUND, Outcome, command_parser, run_command, say
from utils.errors import DataError

NETWORKS = ("r18", "r34", "r50", "r100", "r200", "mbf", "vit_t", "vit_s", "vit_b", "vit_l_dp005_mask_005", "vit_h")
NOTHING_RANDOM: dict[str, Any] = {"drop_path_rate": 0.0, "mask_ratio": 0.0}
# Our nets compute the same in nearly the same order, so only the rounding of reordered sums may differ.
TOLERANCE = 1e-5
NEARLY_NOTHING = 1e-6  # of the largest of all values: smaller is rounding, as a bias's gradient before a norm


class UpstreamError(DataError):
    """No clone of arcface_torch where one was named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the nets and print one line for each; returns 0 where all agree, 1 where not, 2 without such a clone."""
    parser = command_parser(
        "python -m tools.compare_upstream_backbones",
        "Hold every net against insightface's own, under equal weights: outputs, statistics and gradients.",
        ["python -m tools.compare_upstream_backbones --arcface-torch recognition/arcface_torch"],
    )
    parser.add_argument("--arcface-torch", type=Path, required=True, metavar="DIR", help="recognition/arcface_torch")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="comma-separated, default: %(default)s")
    parser.add_argument("--batch", type=int, default=4, help="images, at least 2 (default: %(default)s)")
    parser.add_argument("--commit", help="commit of the clone; read from git where it is one")
    parser.add_argument("--write-keys", type=Path, metavar="FILE", help="write the parameter list as JSON")
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _compare_all(options), (UpstreamError, OSError))


def _compare_all(options: argparse.Namespace) -> Outcome:
    upstream = {name: build_upstream(options.arcface_torch, name) for name in options.networks.split(",")}
    commit = options.commit or _commit_of(options.arcface_torch)
    say(options, f"arcface_torch {commit}, torch {torch.__version__}, batch {options.batch}; of the largest value")
    say(options, f"{'network':21}{'keys':>6}{'train':>12}{'statistics':>12}{'gradients':>12}{'eval':>12}")
    found: dict[str, dict[str, float]] = {}
    for name, theirs in upstream.items():
        ours = build_backbone(name, **NOTHING_RANDOM if is_transformer(name) else {})
        ours.load_state_dict(theirs.state_dict(), strict=True)
        # In float32 the gradient of a deep net of ReLU6 moves by per cents where a sum ends on the other side of 0.
        figures = compare(ours, theirs, options.batch, torch.float64 if is_transformer(name) else torch.float32)
        found[name] = dict(figures)
        say(options, f"{name:21}{len(theirs.state_dict()):6}" + "".join(f"{f:12.2e}" for f in figures.values()))
    if options.write_keys:
        shapes = {name: fold_keys(shapes_of(net)) for name, net in upstream.items()}
        document = {"source": "insightface recognition/arcface_torch", "commit": commit, "networks": shapes}
        options.write_keys.write_text(json.dumps(document, indent=0) + "\n", encoding="utf-8")
        say(options, f"wrote {options.write_keys}")
    is_equal = all(figure <= TOLERANCE for figures in found.values() for figure in figures.values())
    words = "equal" if is_equal else f"NOT equal: a figure is above {TOLERANCE}"
    return Outcome(words, {"commit": commit, "networks": found}, DONE if is_equal else FOUND)


def build_upstream(folder: Path, name: str) -> nn.Module:
    """Build the clone's net with fresh weights, embedding size 512.

    Raises:
        UpstreamError: the folder holds no such code.
    """
    stem = "mobilefacenet" if name == "mbf" else "vit" if is_transformer(name) else "iresnet"
    file = folder / "backbones" / f"{stem}.py"
    if not file.is_file():
        raise UpstreamError(f"{file} does not exist: --arcface-torch must name insightface's recognition/arcface_torch")
    with patch.dict(sys.modules, _stand_ins()):
        module = _import_file(file)
    torch.manual_seed(0)
    if is_transformer(name):
        width, depth = SIZES[NETS[name][0]]
        return cast(nn.Module, module.VisionTransformer(
            img_size=112, patch_size=9, num_classes=512, embed_dim=width, depth=depth, num_heads=8, mask_ratio=0.0,
        ))  # fmt: skip
    net = module.get_mbf(False, 512) if name == "mbf" else getattr(module, f"iresnet{name[1:]}")()
    return cast(nn.Module, net)


def is_transformer(name: str) -> bool:
    """Whether the clone keeps the net in vit.py."""
    return name in NETS


def compare(ours: nn.Module, theirs: nn.Module, batch: int, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Largest differences between two nets of equal weights, each divided by the largest value compared.

    Args:
        ours: one net.
        theirs: the other, with the same state dict.
        batch: images in the random batch, at least 2.
        dtype: of weights and images; float64 for a sharp comparison of small nets.

    Returns:
        "train" and "eval": embeddings in that mode; "statistics": buffers after one training pass;
        "gradients": of all parameters.
    """
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 3, 112, 112, generator=generator).to(dtype) * 2 - 1
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    our_output, their_output = _without_casts(ours.train(), images), _without_casts(theirs.train(), images)
    figures = {"train": _difference([our_output], [their_output])}
    their_buffers = dict(theirs.named_buffers())
    own = list(ours.named_buffers())
    figures["statistics"] = _difference([value for _, value in own], [their_buffers[key] for key, _ in own])
    weight = torch.randn(our_output.shape, generator=generator).to(dtype)
    (our_output * weight).sum().backward()
    (their_output * weight).sum().backward()
    their_parameters = dict(theirs.named_parameters())
    pairs = [(value, their_parameters[key]) for key, value in ours.named_parameters()]
    trained = [pair for pair in pairs if pair[0].requires_grad or pair[1].requires_grad]
    figures["gradients"] = _difference([our.grad for our, _ in trained], [their.grad for _, their in trained])
    figures["eval"] = _difference([_settled_output(ours, images)], [_settled_output(theirs, images)])
    return figures


def _without_casts(net: nn.Module, images: Tensor) -> Tensor:
    """The net's output, though the clone casts to float32 on its way and calls an old name of autocast."""
    with warnings.catch_warnings(), patch.object(Tensor, "float", lambda tensor: tensor.to(images.dtype)):
        warnings.simplefilter("ignore")
        output: Tensor = net(images)
    return output


def _settled_output(net: nn.Module, images: Tensor) -> Tensor:
    """Embeddings in eval mode with the batch's own statistics; with fresh ones r100 overflows float32."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        _without_casts(net.train(), images)
        return _without_casts(net.eval(), images)


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
    match = re.match(r"(layer\d\.|layers\.\d+\.layers\.|blocks\.)(\d+)(\..*)", key)
    return (match[1], int(match[2]), match[3]) if match else (key, 0, "")


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _difference(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> float:
    """Largest of |ours - theirs| over the largest |theirs| of a pair; infinite where only one of a pair exists."""
    pairs = [(our, their) for our, their in zip(ours, theirs, strict=True) if not (our is None and their is None)]
    if any(our is None or their is None for our, their in pairs):
        return float("inf")
    both = [(cast(Tensor, our).double(), cast(Tensor, their).double()) for our, their in pairs]
    scales = [their.abs().max().item() for _, their in both]
    least = max(max(scales) * NEARLY_NOTHING, 1e-30)
    return max(
        (our - their).abs().max().item() / max(scale, least) for (our, their), scale in zip(both, scales, strict=True)
    )


def _stand_ins() -> dict[str, ModuleType]:
    """What vit.py imports from timm, where that is missing; stochastic depth is never built, as its rate is 0."""
    if importlib.util.find_spec("timm") is not None:
        return {}
    parts = {"DropPath": nn.Identity, "to_2tuple": lambda size: (size, size), "trunc_normal_": nn.init.trunc_normal_}
    modules = {name: ModuleType(name) for name in ("timm", "timm.models", "timm.models.layers")}
    vars(modules["timm.models.layers"]).update(parts)
    return modules


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
