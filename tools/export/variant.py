"""What a file can be: input, precision, normalisation, and how closely it must follow PyTorch. Makes no file."""

from __future__ import annotations

from dataclasses import dataclass

from backbones import BackboneInfo
from utils.errors import DataError
from utils.images import FACE, ImageFormat

INPUT, OUTPUT = "images", "embeddings"  # the names of the graph's input and output
FLOAT32, FLOAT16, PIXELS = "float32-nchw", "float16-nchw", "uint8-nhwc"
INPUTS = (FLOAT32, FLOAT16, PIXELS)
FP32, FP16, INT8 = "fp32", "fp16", "int8"
PRECISIONS = (FP32, FP16, INT8)
DEFAULT_OPSET = 20
OPSETS = range(18, 24)  # what the exporter writes by itself; an older one would be translated, which often fails

# Of the largest embedding value. onnxruntime folds batch norms into convolutions, which moves a
# deep net's output by a few 1e-6; a wrong layer moves it by more than 1e-2.
TOLERANCE = 1e-4
# The smallest cosine between PyTorch's and the file's embedding of one image. Measured on the 7,701 faces of LFW and
# their mirror images, see docs/onnx.md: rounding alone stays far above, a fault (saturated products, a missed layer)
# falls far below. fp32 is held to TOLERANCE as well.
WORST_COSINES = {FP32: 0.99999, FP16: 0.9999, INT8: 0.99}


class ExportError(DataError):
    """A model that could not be exported, or a file that cannot be described."""


class DisagreementError(ExportError):
    """A finished file that does not give what PyTorch gives; it was not written."""


@dataclass(frozen=True)
class Variant:
    """How one file differs from the default, which is arcface_torch's layout.

    Attributes:
        input: one of INPUTS: what the graph takes.
        is_normalized: x / ||x|| at the graph's end.
        precision: one of PRECISIONS.
        opset: ONNX operator set.
    """

    input: str = FLOAT32
    is_normalized: bool = False
    precision: str = FP32
    opset: int = DEFAULT_OPSET

    def __post_init__(self) -> None:
        if self.input == FLOAT16 and self.precision != FP16:
            raise ExportError(f"--input {FLOAT16} is for --precision {FP16}; this one is {self.precision}")


def image_format(info: BackboneInfo) -> ImageFormat:
    """Size and channels of a net's images, with the one normalisation."""
    return ImageFormat(*info.image_size, info.in_channels, FACE.mean, FACE.std)


def require_cosine(worst: float, allowed: float, where: str) -> None:
    """Raises DisagreementError where the worst cosine is below what is allowed, or not a number."""
    if not worst >= allowed:
        raise DisagreementError(
            f"{where}: the worst cosine between PyTorch's and the file's embedding of one image is {worst:.6f}, "
            f"allowed is {allowed}. --min-cosine accepts less; another --precision loses less"
        )
