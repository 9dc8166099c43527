"""ONNX files -> a function from uint8 images to embeddings, run by onnxruntime; PyTorch's models are next door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.model_metadata import INPUT, NORMALIZED, TRUE, EmbedderError, require_our_pixels
from utils.images import FACE, ImageFormat, to_model_input

_PIXELS = "tensor(uint8)"
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_QUIET = 3  # errors only; onnxruntime's remarks about a graph are for its maker


class OnnxEmbedder:
    """An ONNX file behind the same signature as a backbone: uint8 (B, H, W, C) RGB -> float32 (B, D) on the CPU.

    The type of its one input says what it is given: float32 or float16 (B, C, H, W) are normalised here, as
    arcface_torch's exports need it; uint8 (B, H, W, C) goes in as it is, and the graph normalises. A file that wants
    other pixels than RGB, (x - 127.5) / 127.5, is refused.

    Args:
        source: the file, or its bytes.
        device: CUDA where onnxruntime has that provider, else the CPU.
        image_format: what an image looks like; faces unless a net for other images is looked at.
        threads: None takes as many as PyTorch uses in this process, so that ranks share the cores.

    Attributes:
        metadata: the file's entries, text to text.
        is_normalized: the graph ends with x / ||x||: norms are 1, and adding a mirrored image's embedding adds unit
            vectors, not what insightface adds.

    Raises:
        EmbedderError: onnxruntime cannot load it, or it takes other inputs or pixels.
    """

    def __init__(
        self,
        source: Path | bytes,
        device: torch.device | str = "cpu",
        *,
        image_format: ImageFormat = FACE,
        threads: int | None = None,
    ) -> None:
        import onnxruntime

        self._name = "the model" if isinstance(source, bytes) else str(source)
        self._format = image_format
        wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        available = onnxruntime.get_available_providers()
        providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in available]
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = threads or torch.get_num_threads()
        session_options.log_severity_level = _QUIET
        try:
            model = source if isinstance(source, bytes) else str(source)
            self._session = onnxruntime.InferenceSession(model, session_options, providers=providers)
        except Exception as error:  # onnxruntime's own exception classes are private
            raise EmbedderError(f"{self._name}: onnxruntime cannot load it: {error}") from error
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.is_normalized = self.metadata.get(NORMALIZED) == TRUE
        self._input = self._checked_input()
        self._dtype = _FLOATS.get(self._input.type)
        if image_format == FACE:
            require_our_pixels(self._name, self.metadata)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, C) RGB -> float32 (B, D) on the CPU."""
        if self._dtype is None:
            pixels = self._as_pixels(images)
        else:
            pixels = to_model_input(images.cpu(), self._format).numpy().astype(self._dtype, copy=False)
        batch = self._input.shape[0]
        # a file exported for one batch size only takes exactly that many images
        step = batch if isinstance(batch, int) and batch > 0 else len(pixels)
        parts = []
        for start in range(0, len(pixels), step):
            chunk = pixels[start : start + step]
            missing = np.zeros((step - len(chunk), *chunk.shape[1:]), dtype=chunk.dtype)
            output = self._run(np.concatenate([chunk, missing]) if len(missing) else chunk)
            parts.append(torch.from_numpy(output)[: len(chunk)].flatten(1))
        return torch.cat(parts).float()

    def _run(self, pixels: NDArray[Any]) -> NDArray[Any]:
        try:
            output: NDArray[Any] = self._session.run(None, {self._input.name: pixels})[0]
        except Exception as error:
            raise EmbedderError(f"{self._name}: onnxruntime cannot run it on {pixels.shape}: {error}") from error
        return output

    def _as_pixels(self, images: Tensor) -> NDArray[Any]:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != self._format.channels:
            raise EmbedderError(
                f"{self._name}: takes uint8 (B, H, W, {self._format.channels}); got {images.dtype} "
                f"{tuple(images.shape)}"
            )
        return np.ascontiguousarray(images.cpu().numpy())

    def _checked_input(self) -> Any:
        """The one input, once its type and its sizes are known to be a batch of such images."""
        inputs = self._session.get_inputs()
        height, width, channels = self._format.shape
        planes, interleaved = (channels, height, width), (height, width, channels)
        needs = f"(batch, {', '.join(map(str, planes))}) float, or (batch, {', '.join(map(str, interleaved))}) uint8"
        found = ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs)
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise EmbedderError(f"{self._name}: needs one input {needs}; it has {found}")
        wanted = interleaved if inputs[0].type == _PIXELS else planes
        fits = all(
            not isinstance(got, int) or got in (want, 0, -1)
            for got, want in zip(inputs[0].shape[1:], wanted, strict=True)
        )
        if inputs[0].type not in (_PIXELS, *_FLOATS) or not fits:
            raise EmbedderError(f"{self._name}: needs one input {needs}; it has {found}")
        said = self.metadata.get(INPUT)
        if said is not None and said.startswith("uint8") != (inputs[0].type == _PIXELS):
            raise EmbedderError(f"{self._name}: its metadata says {INPUT} = {said}, but its input is {found}")
        return inputs[0]
