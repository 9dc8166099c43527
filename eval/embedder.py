"""Model files and modules -> a function from uint8 images to embeddings; knows no pairs and no scores."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import backbone_info, build_backbone, infer_backbone, load_weights
from backbones.registry import BACKBONES, INSTALLED, WITH_OPTIONS
from eval.model_metadata import (
    EMBEDDING_SIZE,
    IMAGE_SIZE,
    IN_CHANNELS,
    NETWORK,
    EmbedderError,
    require_our_pixels,
    whole_number,
)
from eval.onnx_embedder import OnnxEmbedder
from eval.run_format import format_beside
from utils.images import FACE, ImageFormat, to_model_input
from utils.safetensors_files import SUFFIX, read_safetensors_metadata

__all__ = [
    "CHECKPOINTS",
    "Embedder",
    "EmbedderError",
    "ModuleEmbedder",
    "OnnxEmbedder",
    "evaluating",
    "find_weights",
    "load_embedder",
    "load_module",
    "unwrap",
]

# uint8 (B, H, W, C) on any device -> float32 (B, D) on the embedder's device; not normalised, unless a file does so
Embedder = Callable[[Tensor], Tensor]

CHECKPOINTS = ("best", "last")
_WEIGHTS = {"best": "best.pt", "last": "model.pt"}
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class ModuleEmbedder:
    """A backbone module behind the one normalisation; inference mode, autocast where a reduced precision is asked for.

    Args:
        model: (B, 3, 112, 112) float -> (B, D). Wrappers of DistributedDataParallel and torch.compile are looked
            through: the first would talk to the other ranks once a batch, the second compile once more.
        device: where the images go; the model is expected to be there.
        precision: "fp32", "bf16" or "fp16".
        image_format: what an image looks like; faces unless a net for other images is looked at.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        *,
        image_format: ImageFormat = FACE,
    ) -> None:
        if precision not in _AUTOCAST:
            raise EmbedderError(f"unknown precision {precision!r}; allowed: {', '.join(_AUTOCAST)}")
        self.model = unwrap(model)
        self.device = torch.device(device)
        self._dtype = _AUTOCAST[precision]
        self._format = image_format
        # images in the layout of the kernels: the other way round every convolution would copy them first
        kernels = [p for p in self.model.parameters() if p.ndim == 4 and not p.is_contiguous()]
        self._channels_last = any(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 112, 112, 3) RGB -> float32 (B, D)."""
        given = images.to(self.device, non_blocking=True)
        pixels = to_model_input(given, self._format, channels_last=self._channels_last)
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            embeddings: Tensor = self.model(pixels)
        return embeddings.float()


def load_embedder(
    path: str | Path,
    *,
    network: str | None = None,
    device: torch.device | str = "cpu",
    checkpoint: str = "best",
    precision: str = "fp32",
) -> Embedder:
    """Load a model by what its path is.

    Args:
        path: a run folder, `model.pt`, `backbone.pth` (also those that arcface_torch publishes), `model.safetensors`
            or `model.onnx`.
        network: backbone name; None reads it from the metadata of a `.safetensors` file, from the `config.json` in the
            run folder or beside the weights, or tells it from the weights' names and shapes.
        device: where it runs. Ignored by ONNX where onnxruntime has no such provider.
        checkpoint: for a run folder, "best" (falls back to "last" while nothing has been verified) or "last".
        precision: "fp32", "bf16" or "fp16"; ONNX runs as exported.

    Returns:
        uint8 (B, 112, 112, 3) RGB tensor -> float32 (B, D) tensor, not normalised unless an ONNX file does it itself
        (`OnnxEmbedder.is_normalized`).

    Raises:
        EmbedderError: no such model, or weights that do not fit the network.
        backbones.WeightsError: a weights file that cannot be read, or that no known backbone fits.
    """
    weights = find_weights(path, checkpoint)
    if weights.suffix == ".onnx":
        return OnnxEmbedder(weights, device)
    model = load_module(weights, network=network)
    info = backbone_info(model)
    if (*info.image_size, info.in_channels) != FACE.shape:
        takes = f"{info.image_size[0]}x{info.image_size[1]} images of {info.in_channels} channels"
        raise EmbedderError(f"{weights}: network {info.name!r} takes {takes}, faces are 112x112 of 3 channels")
    # interleaved channels: a third faster on CPUs, and what tensor cores want
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub omits it
    return ModuleEmbedder(model, device, precision, image_format=format_beside(weights))


def find_weights(path: str | Path, checkpoint: str = "best") -> Path:
    """The weights file that `load_embedder` would read."""
    path = Path(path)
    if checkpoint not in CHECKPOINTS:
        raise EmbedderError(f"unknown checkpoint {checkpoint!r}; allowed: {', '.join(CHECKPOINTS)}")
    if path.is_file():
        return path
    if not path.is_dir():
        raise EmbedderError(f"{path}: no such model; give a run folder, model.pt, backbone.pth, .safetensors or .onnx")
    for name in (_WEIGHTS[checkpoint], _WEIGHTS["last"]):
        if (path / name).is_file():
            return path / name
    there = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    raise EmbedderError(f"{path}: a run folder holds best.pt or model.pt once training has saved; there is {there}")


def load_module(weights: Path, *, network: str | None = None) -> nn.Module:
    """Build the backbone that a weights file belongs to, on the CPU, in eval mode.

    Args:
        weights: a state dict that `torch.save` wrote, or a `.safetensors` file.
        network: backbone name; None reads the file's metadata or `config.json` beside it, or tells it from the weights.

    Raises:
        EmbedderError: the weights do not fit that network. backbones.WeightsError: unreadable, or no network fits.
    """
    state = load_weights(weights)
    metadata = read_safetensors_metadata(weights) if weights.suffix == SUFFIX else {}
    require_our_pixels(str(weights), metadata)
    config = _config_beside(weights)
    name = network or metadata.get(NETWORK) or config.get("network")
    # what a net of a run is built with; of one without its config.json the shapes tell
    own = config.get("network_options") if name == config.get("network") else None
    options: dict[str, Any]
    if name is None:
        name, options = infer_backbone(state)
    elif weights.suffix == SUFFIX:
        options = _named_options(state, metadata, weights, name)
    elif name in WITH_OPTIONS and not isinstance(own, dict):
        options = infer_backbone(state, name)[1]
    else:
        options = _options(state, weights)
    try:
        model = build_backbone(name, **{**options, **(own if isinstance(own, dict) else {})})
    except (ValueError, TypeError) as error:  # an unknown name, or an option that it does not have
        raise EmbedderError(f"{weights}: {error}") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise EmbedderError(f"{weights}: these are not the weights of network {name!r} {options}: {error}") from error
    return model.eval()


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    inner = getattr(inner, "_orig_mod", inner)
    return model if inner is model or not isinstance(inner, nn.Module) else unwrap(inner)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule has the mode it had, also frozen ones in a training model."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _config_beside(weights: Path) -> dict[str, Any]:
    path = weights.parent / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EmbedderError(f"{path}: not the JSON that a run writes: {error}") from error
    return config if isinstance(config, dict) else {}


def _options(state: dict[str, Tensor], weights: Path) -> dict[str, Any]:
    """What a named network is built with: images enter its first kernel, embeddings leave its last layer."""
    kernels = [value for value in state.values() if value.ndim == 4]
    vectors = [value for value in state.values() if value.ndim >= 1]
    if not kernels:
        raise EmbedderError(f"{weights}: holds no convolution, so these are not the weights of a backbone")
    return {"embedding_size": int(vectors[-1].shape[0]), "in_channels": int(kernels[0].shape[1])}


def _named_options(state: dict[str, Tensor], metadata: dict[str, str], weights: Path, name: str) -> dict[str, Any]:
    """The same for a file that keeps its tensors in an order of its own, so that none is known to be the last.

    What the metadata announces is believed only where a tensor in the file has that size: a net is built from it.
    """
    if not name.startswith(tuple(INSTALLED)):
        options = infer_backbone(state, name)[1]
        if IMAGE_SIZE in metadata and IMAGE_SIZE in inspect.signature(BACKBONES[name]).parameters:
            height = metadata[IMAGE_SIZE].partition("x")[0]
            options[IMAGE_SIZE] = whole_number(str(weights), {IMAGE_SIZE: height}, IMAGE_SIZE)
        return options
    sizes = {key: whole_number(str(weights), metadata, key) for key in (EMBEDDING_SIZE, IN_CHANNELS)}
    there = {size for value in state.values() if value.numel() for size in value.shape}
    if not all(size in there for size in sizes.values()):
        raise EmbedderError(
            f"{weights}: to build {name!r} its metadata must say {EMBEDDING_SIZE} and {IN_CHANNELS} as its tensors "
            f"have them; it says {sizes}"
        )
    return sizes
