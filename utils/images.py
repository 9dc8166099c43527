"""Bytes -> pixels, pixels -> bytes, and the one normalisation. Knows nothing of files, labels or augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.errors import DataError
from utils.image_header import image_size

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
# OpenCV before 4.10 cannot hand out RGB itself; the conversion costs a second pass over the pixels.
_DECODES_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_COLOR = cv2.IMREAD_COLOR_RGB if _DECODES_RGB else cv2.IMREAD_COLOR
_QUALITY = {"jpg": cv2.IMWRITE_JPEG_QUALITY, "png": None, "webp": cv2.IMWRITE_WEBP_QUALITY}
MAX_PIXELS = 100_000_000  # of an image whose size nobody has promised; 300 MB decoded


class ImageError(DataError):
    """Bytes that are no image, a damaged image, or an image of another size than the data set's."""


@dataclass(frozen=True)
class ImageFormat:
    """What every image of a source looks like and how its pixels become numbers.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
        channels: 3 (RGB order) or 1 (grey).
        mean: subtracted from the 0..255 pixel value.
        std: divides the difference: normalised = (pixel - mean) / std.
        mean_image: subtracted in place of `mean` where there is one: float32 (H, W, C), little-endian, as bytes, which
            can be hashed, compared and pickled as the rest.
    """

    height: int
    width: int
    channels: int
    mean: float = 127.5
    std: float = 127.5
    mean_image: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """ImageError where a mean image has another size than the images."""
        expected = 4 * self.height * self.width * self.channels
        if len(self.mean_image) not in (0, expected):
            raise ImageError(
                f"a mean image of {self.shape} has {expected} bytes (float32), this one {len(self.mean_image)}: it "
                "belongs to other images"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels), the shape of one decoded image."""
        return (self.height, self.width, self.channels)


FACE = ImageFormat(112, 112, 3)


def decode_image(data: bytes | memoryview, image_format: ImageFormat | None = None) -> np.ndarray:
    """Decodes JPEG, PNG, BMP or WebP; of all that OpenCV reads, nothing else is let near its decoders.

    The size is read from the header first: an image of another size than the format's, or of more than MAX_PIXELS, is
    refused before any memory is taken for it.

    Args:
        data: the encoded file; a memoryview is decoded in place, without a copy.
        image_format: the expected height, width and channels; None takes any size and gives RGB.

    Returns:
        uint8 (H, W, 3) in RGB order, or (H, W, 1) where the format has one channel.

    Raises:
        ImageError: on bytes that do not decode, a file that ends early, or a size other than the format's.
    """
    if len(data) == 0:
        raise ImageError("the image is empty (0 bytes): the record or file holds no pixels; pack it again")
    _require_whole_jpeg(data)
    _require_size(data, image_format)
    grey = image_format is not None and image_format.channels == 1
    flag = cv2.IMREAD_GRAYSCALE if grey else _COLOR
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot decode these {len(data)} bytes: {error}") from None
    if decoded is None:
        raise _no_image(data)
    image: np.ndarray = decoded
    if grey:
        image = image[:, :, np.newaxis]
    elif not _DECODES_RGB:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image_format is not None and image.shape != image_format.shape:
        raise _other_size(image.shape[0], image.shape[1], image_format)
    return image


def _require_size(data: bytes | memoryview, image_format: ImageFormat | None) -> None:
    """Refuses by the header alone what is no image, of another size than promised, or a decompression bomb."""
    size = image_size(data)
    if size is None:
        raise _no_image(data)
    height, width = size
    if image_format is None:
        if height * width > MAX_PIXELS:
            raise ImageError(
                f"{len(data)} bytes announce an image of {height}x{width} pixels; more than {MAX_PIXELS:,} are refused "
                "before they are decoded"
            )
    elif size != (image_format.height, image_format.width) and size != (image_format.width, image_format.height):
        # turned by a quarter it may be right: OpenCV follows the orientation that cameras note
        raise _other_size(height, width, image_format)


def _no_image(data: bytes | memoryview) -> ImageError:
    return ImageError(
        f"these {len(data)} bytes (they begin with {bytes(data[:4]).hex(' ')}) are not a whole image that OpenCV "
        "can decode; JPEG begins with ff d8, PNG with 89 50 4e 47, and BMP and WebP are read too"
    )


def _other_size(height: int, width: int, image_format: ImageFormat) -> ImageError:
    return ImageError(
        f"the image is {height}x{width} (height x width), the data set's images are "
        f"{image_format.height}x{image_format.width}: resize it, or pack the set with --size"
    )


def _require_whole_jpeg(data: bytes | memoryview) -> None:
    """Refuses a JPEG that ends early: some OpenCV versions fill the missing part with grey and say nothing."""
    if data[:2] != _JPEG_START or data[-2:] == _JPEG_END:
        return
    whole = bytes(data)  # rare: some cameras write bytes behind the end marker
    if whole.rfind(_JPEG_END) <= whole.rfind(_JPEG_SCAN):
        raise ImageError(f"the JPEG ends early, after {len(data)} bytes: its end marker (ff d9) is missing")


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encodes an image as JPEG.

    Args:
        image: uint8 (H, W, 3) in RGB order, or (H, W, 1).
        quality: 1 to 100.

    Raises:
        ImageError: on another type or shape, or a quality outside 1 to 100.
    """
    return encode_image(image, "jpg", quality)


def encode_image(image: np.ndarray, kind: str, quality: int = 95) -> bytes:
    """Encodes an image.

    Args:
        image: uint8 (H, W, 3) in RGB order, or (H, W, 1).
        kind: "jpg", "png" (keeps every pixel) or "webp".
        quality: 1 to 100; of jpg and webp.

    Raises:
        ImageError: on another kind, type or shape, or a quality outside 1 to 100.
    """
    if kind not in _QUALITY:
        raise ImageError(f"cannot encode as {kind!r}; there are {', '.join(_QUALITY)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise ImageError(f"cannot encode {image.dtype} {image.shape}: give uint8 (H, W, 3) RGB or (H, W, 1)")
    if not 1 <= quality <= 100:
        raise ImageError(f"JPEG quality {quality} is not in 1 .. 100")
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else np.ascontiguousarray(image)
    setting = _QUALITY[kind]
    encoded, buffer = cv2.imencode(f".{kind}", pixels, [] if setting is None else [setting, quality])
    if not encoded:
        raise ImageError(f"OpenCV could not encode an image of shape {image.shape} as {kind}")
    return buffer.tobytes()


def stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The whole image at another size, bilinear; its aspect ratio is not kept.

    For sets whose papers do so, as those of pedestrians: cutting out the middle would take heads and feet.

    Args:
        image: uint8 (H, W, C), C 1 or 3.
        size: (height, width) in pixels.

    Returns:
        uint8 (height, width, C); the same object where it has that size.
    """
    if image.shape[:2] == size:
        return image
    scaled = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return scaled.reshape(*size, image.shape[2])


def to_model_input(images: Tensor, image_format: ImageFormat = FACE, *, channels_last: bool = False) -> Tensor:
    """Normalises a batch on the device it is on; nothing else in the project turns pixels into floats.

    Args:
        images: uint8 (B, H, W, C), RGB order.
        image_format: supplies mean (or mean image) and std, in pixel units.
        channels_last: keep the pixels interleaved in memory, as convolutions on GPUs with tensor cores like it.

    Returns:
        float32 (B, C, H, W), (pixel - mean) / std; the mean is one number, or one for each row, column and channel.

    Raises:
        ImageError: where the tensor is not uint8 (B, H, W, C) with the format's number of channels, or has another size
            than the mean image.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] != image_format.channels:
        raise ImageError(
            f"model input is made from uint8 (B, H, W, {image_format.channels}), got {images.dtype} "
            f"{tuple(images.shape)}: pass the loader's images as they are"
        )
    planes = images.permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = planes.to(torch.float32, memory_format=layout)
    if not image_format.mean_image:
        return pixels.sub_(image_format.mean).div_(image_format.std)
    if images.shape[1:] != image_format.shape:
        raise ImageError(f"images are {tuple(images.shape[1:])}, the mean image is {image_format.shape}: train anew")
    return pixels.sub_(_mean_on(image_format, images.device)).div_(image_format.std)


@lru_cache(maxsize=8)
def _mean_on(image_format: ImageFormat, device: torch.device) -> Tensor:
    """The mean image, float32 (C, H, W), copied to a device once and kept there."""
    values = np.frombuffer(image_format.mean_image, dtype="<f4").reshape(image_format.shape)
    planes = values.transpose(2, 0, 1).astype(np.float32, order="C")  # a copy: torch does not take memory of bytes
    with torch.inference_mode(False):  # a tensor made inside would stay outside of training for ever
        return torch.from_numpy(planes).to(device)
