"""Backbone weights -> one checked ONNX file; everything about the graph and its metadata, nothing about training.

Usage: python -m tools.export_onnx RUN_DIR [--out FILE] [--checkpoint best|last] [--opset N]
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from backbones import BackboneInfo, backbone_info
from eval.embedder import CHECKPOINTS, find_weights, load_module
from utils.images import FACE

ROOT = Path(__file__).resolve().parent.parent
INPUT, OUTPUT = "images", "embeddings"
CHECKED_BATCHES = (1, 3, 32)
# Of the largest embedding value. onnxruntime folds batch norms into convolutions, which moves a
# deep net's output by a few 1e-6; a wrong layer moves it by more than 1e-2.
TOLERANCE = 1e-4
DEFAULT_OPSET = 20
OPSETS = range(18, 24)  # what the exporter writes by itself; an older one would be translated, which often fails


class ExportError(ValueError):
    """A model that could not be exported, or whose ONNX file does not give what PyTorch gives."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, check, print; returns 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.export_onnx",
        description="Write a backbone as one ONNX file with a dynamic batch and check it against PyTorch.",
    )
    parser.add_argument("model", type=Path, help="a run folder, or a weights file (model.pt, backbone.pth)")
    parser.add_argument("--out", type=Path, help="the file to write (default: model.onnx beside the weights)")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="of a run folder (default: best)")
    parser.add_argument("--network", help="backbone name, where neither config.json nor the weights tell it")
    parser.add_argument(
        "--opset", type=int, default=DEFAULT_OPSET, choices=OPSETS, metavar="N",
        help=f"ONNX operator set, {OPSETS[0]} to {OPSETS[-1]} (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        weights = find_weights(options.model, options.checkpoint)
        if weights.suffix == ".onnx":
            raise ExportError(f"{weights}: is an ONNX file already; give the weights it came from")
        backbone = load_module(weights, network=options.network)
        out = options.out or weights.with_name("model.onnx" if options.model.is_dir() else weights.stem + ".onnx")
        print(f"{weights} -> {out}", flush=True)
        differences = export(backbone, out, opset=options.opset, extra_metadata={"weights": weights.name})
    except ValueError as error:  # ExportError, EmbedderError, WeightsError, an unknown network
        print(f"error: {error}", file=sys.stderr)
        return 1
    info = backbone_info(backbone)
    print(
        f"{info.name}: opset {options.opset}, {out.stat().st_size / 1e6:.1f} MB\n"
        f"input {INPUT!r} (batch, {info.in_channels}, {info.image_size[0]}, {info.image_size[1]}) float32, "
        f"(pixel - {FACE.mean}) / {FACE.std}, {color_order(info)}\noutput {OUTPUT!r} (batch, {info.embedding_size})"
    )
    for batch, (gap, scale) in differences.items():
        print(f"batch {batch:3}: max abs difference {gap:.2e}, of the largest value {scale:.2e}: {gap / scale:.1e}")
    print(f"onnxruntime {onnxruntime.__version__} agrees with PyTorch {torch.__version__} (tolerance {TOLERANCE})")
    return 0


def export(
    backbone: nn.Module, out: Path, *, opset: int = DEFAULT_OPSET, extra_metadata: Mapping[str, str] | None = None
) -> dict[int, tuple[float, float]]:
    """Write ``backbone`` to ``out``, once onnxruntime has been seen to agree with it.

    The graph takes float32 (batch, channels, height, width), already normalised: the layout that arcface_torch's
    ONNX files take, so that pipelines made for those keep working. The file holds its weights and appears under
    its name only after the check.

    Args:
        backbone: what ``build_backbone`` returned; exported in eval mode, its mode is restored.
        out: the file to write; its folder is made.
        opset: ONNX operator set.
        extra_metadata: more entries for ``metadata_props``.

    Returns:
        For each checked batch size, the largest absolute difference and the largest absolute value.

    Raises:
        ExportError: the exporter failed, or the outputs differ by more than TOLERANCE.
    """
    info = backbone_info(backbone)
    modes = [(module, module.training) for module in backbone.modules()]
    partial = out.with_name(out.name + ".partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        backbone.eval()
        model = to_onnx(backbone, info, opset)
        onnx.helper.set_model_props(model, {**metadata(info), **(extra_metadata or {})})
        onnx.save(model, str(partial))
        differences = compare(backbone, partial, info)
        require_agreement(differences, out)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
        for module, training in modes:
            module.training = training
    return differences


def to_onnx(backbone: nn.Module, info: BackboneInfo, opset: int) -> onnx.ModelProto:
    """Trace the net into an ONNX model whose batch is a symbolic dimension."""
    parameter = next(backbone.parameters())
    example = torch.zeros(2, info.in_channels, *info.image_size, device=parameter.device)
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                backbone, (example,), dynamo=True, verbose=False, opset_version=opset,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    except Exception as error:  # the exporter's errors share no narrower base
        raise ExportError(f"{info.name}: torch.onnx.export failed: {error}") from error
    if program is None:
        raise ExportError(f"{info.name}: torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    for value, shape in ((model.graph.input[0], "batch of the input"), (model.graph.output[0], "batch of the output")):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(f"{info.name}: the {shape} became a constant in the graph; it must stay dynamic")
    return model


def metadata(info: BackboneInfo) -> dict[str, str]:
    """What a user of the file must know to feed it, as ``metadata_props``."""
    entries = {
        "input_name": INPUT,
        "output_name": OUTPUT,
        "color_order": color_order(info),
        "layout": "NCHW float32, normalised as (pixel - mean) / std",
        "mean": str(FACE.mean),
        "std": str(FACE.std),
        "image_size": f"{info.image_size[0]}x{info.image_size[1]}",
        "network": info.name,
        "embedding_size": str(info.embedding_size),
    }
    written_by = {"marginface_version": code_version(), "marginface_commit": code_commit()}
    return {**entries, **{key: value for key, value in written_by.items() if value}}


def color_order(info: BackboneInfo) -> str:
    """RGB for three channels, GRAY for one."""
    return "RGB" if info.in_channels == 3 else "GRAY" if info.in_channels == 1 else f"{info.in_channels} channels"


def code_version() -> str | None:
    """The version in pyproject.toml; None where that file did not come along."""
    project = ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else None


def code_commit() -> str | None:
    """The commit of this code, with "-dirty" where it was changed since; None outside a git clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def compare(backbone: nn.Module, file: Path, info: BackboneInfo) -> dict[int, tuple[float, float]]:
    """Run the file and the net on the same random images.

    Args:
        backbone: the net in eval mode.
        file: the ONNX file.
        info: of the net.

    Returns:
        batch size -> (largest absolute difference, largest absolute value of the net's output).

    Raises:
        ExportError: onnxruntime cannot load or run the file.
    """
    generator = torch.Generator().manual_seed(0)
    device = next(backbone.parameters()).device
    differences: dict[int, tuple[float, float]] = {}
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for batch in CHECKED_BATCHES:
            pixels = torch.randint(0, 256, (batch, info.in_channels, *info.image_size), generator=generator)
            images = (pixels.float() - FACE.mean) / FACE.std
            with torch.no_grad():
                expected: Tensor = backbone(images.to(device)).cpu()
            got: np.ndarray = session.run([OUTPUT], {INPUT: images.numpy()})[0]
            if got.shape != tuple(expected.shape):
                raise ExportError(f"{info.name}: batch {batch} came back as {got.shape}, not {tuple(expected.shape)}")
            gap = (torch.from_numpy(got) - expected).abs().max().item()
            differences[batch] = (gap, expected.abs().max().item())
    except ExportError:
        raise
    except Exception as error:  # onnxruntime's own exception classes are private
        raise ExportError(f"{info.name}: onnxruntime cannot run the exported file: {error}") from error
    return differences


def require_agreement(differences: Mapping[int, tuple[float, float]], out: Path) -> None:
    """Raise ExportError where a batch differs by more than TOLERANCE of the largest value, or is not finite."""
    for batch, (gap, scale) in differences.items():
        if not gap <= TOLERANCE * scale:
            raise ExportError(
                f"{out} was not written: at batch {batch} onnxruntime differs from PyTorch by {gap:.3e} where the "
                f"largest value is {scale:.3e}; allowed is {TOLERANCE} of it. Not finite: the weights overflow float32"
            )


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hide the exporter's remarks about packages that are not installed and about torch's own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
