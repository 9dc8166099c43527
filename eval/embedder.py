"""Model files and modules -> a function from uint8 images to embeddings; knows no pairs and no scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import backbone_info, build_backbone, infer_backbone, load_weights
from utils.images import FACE, to_model_input

# uint8 (B, H, W, C) on any device -> float32 (B, D), not normalised, on the embedder's device
Embedder = Callable[[Tensor], Tensor]

CHECKPOINTS = ("best", "last")
_WEIGHTS = {"best": "best.pt", "last": "model.pt"}
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class EmbedderError(ValueError):
    """A model that cannot be loaded or used as an embedder; the text says what was found and what is needed."""


class ModuleEmbedder:
    """A backbone module behind the one normalisation; inference mode, autocast where a reduced precision is asked for.

    Args:
        model: (B, 3, 112, 112) float -> (B, D). Wrappers of DistributedDataParallel and torch.compile are looked
            through: the first would talk to the other ranks once a batch, the second compile once more.
        device: where the images go; the model is expected to be there.
        precision: "fp32", "bf16" or "fp16".
    """

    def __init__(self, model: nn.Module, device: torch.device | str = "cpu", precision: str = "fp32") -> None:
        if precision not in _AUTOCAST:
            raise EmbedderError(f"unknown precision {precision!r}; allowed: {', '.join(_AUTOCAST)}")
        self.model = unwrap(model)
        self.device = torch.device(device)
        self._dtype = _AUTOCAST[precision]
        # images in the layout of the kernels: the other way round every convolution would copy them first
        kernels = [p for p in self.model.parameters() if p.ndim == 4 and not p.is_contiguous()]
        self._channels_last = any(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 112, 112, 3) RGB -> float32 (B, D)."""
        pixels = to_model_input(images.to(self.device, non_blocking=True), channels_last=self._channels_last)
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            embeddings: Tensor = self.model(pixels)
        return embeddings.float()


class OnnxEmbedder:
    """An ONNX file behind the same normalisation, run by onnxruntime; other normalisations than ours are refused."""

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        import onnxruntime

        wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        available = onnxruntime.get_available_providers()
        providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in available]
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=providers)
        except Exception as error:  # onnxruntime's own exception classes are private
            raise EmbedderError(f"{path}: onnxruntime cannot load it: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
            raise EmbedderError(f"{path}: needs one input (batch, 3, 112, 112); it has {found}")
        self._input = inputs[0]
        _check_onnx_metadata(path, self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 112, 112, 3) RGB -> float32 (B, D) on the CPU."""
        pixels = to_model_input(images.cpu()).numpy()
        batch = self._input.shape[0]
        # a file exported for one batch size only takes exactly that many images
        step = batch if isinstance(batch, int) and batch > 0 else len(pixels)
        parts = []
        for start in range(0, len(pixels), step):
            chunk = torch.from_numpy(pixels[start : start + step])
            padded = torch.cat([chunk, chunk.new_zeros(step - len(chunk), *chunk.shape[1:])])
            output = self._session.run(None, {self._input.name: padded.numpy()})[0]
            parts.append(torch.from_numpy(output)[: len(chunk)].flatten(1))
        return torch.cat(parts).float()


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
        path: a run folder, `model.pt`, `backbone.pth` (also those that arcface_torch publishes) or `model.onnx`.
        network: backbone name; None reads it from the `config.json` in the run folder or beside the weights, or tells
            it from the weights' names and shapes.
        device: where it runs. Ignored by ONNX where onnxruntime has no such provider.
        checkpoint: for a run folder, "best" (falls back to "last" while nothing has been verified) or "last".
        precision: "fp32", "bf16" or "fp16"; ONNX runs as exported.

    Returns:
        uint8 (B, 112, 112, 3) RGB tensor -> float32 (B, D) tensor, not normalised.

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
    return ModuleEmbedder(model, device, precision)


def find_weights(path: str | Path, checkpoint: str = "best") -> Path:
    """The weights file that `load_embedder` would read."""
    path = Path(path)
    if checkpoint not in CHECKPOINTS:
        raise EmbedderError(f"unknown checkpoint {checkpoint!r}; allowed: {', '.join(CHECKPOINTS)}")
    if path.is_file():
        return path
    if not path.is_dir():
        raise EmbedderError(f"{path}: no such model; give a run folder, model.pt, backbone.pth or model.onnx")
    for name in (_WEIGHTS[checkpoint], _WEIGHTS["last"]):
        if (path / name).is_file():
            return path / name
    there = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    raise EmbedderError(f"{path}: a run folder holds best.pt or model.pt once training has saved; there is {there}")


def load_module(weights: Path, *, network: str | None = None) -> nn.Module:
    """Build the backbone that a weights file belongs to, on the CPU, in eval mode.

    Args:
        weights: a state dict that `torch.save` wrote.
        network: backbone name; None reads `config.json` beside the weights, or tells it from the weights.

    Raises:
        EmbedderError: the weights do not fit that network. backbones.WeightsError: unreadable, or no network fits.
    """
    state = load_weights(weights)
    config = _config_beside(weights)
    name = network or config.get("network")
    options: dict[str, Any]
    if name is None:
        name, options = infer_backbone(state)
    else:
        options = _options(state, weights)
    model = build_backbone(name, **options)
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


def _check_onnx_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Refuse a file whose preprocessing is not ours; a file that says nothing is taken as arcface_torch's export is."""
    expected = {"color_order": "RGB", "mean": FACE.mean, "std": FACE.std}
    for key, wanted in expected.items():
        if key not in metadata:
            continue
        got = metadata[key]
        same = got.upper() == wanted if isinstance(wanted, str) else _numbers(got) == {wanted}
        if not same:
            raise EmbedderError(f"{path}: its metadata says {key} = {got}; images are given as {key} = {wanted}")


def _numbers(text: str) -> set[float]:
    try:
        return {float(word) for word in text.strip("[]() ").replace(",", " ").split()}
    except (ValueError, RecursionError):
        return set()
