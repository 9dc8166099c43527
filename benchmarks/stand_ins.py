"""The few functions of mxnet and torchvision that arcface_torch's data path calls, on OpenCV, Pillow and torch.

Both packages are optional here (mxnet cannot be installed beside numpy 2), so where one is missing the peer gets these:
the same operations on the same values, with less between call and work than the originals have.
"""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import cv2
import numpy as np
import torch
from PIL import Image

_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LENGTH = (1 << 29) - 1


def missing_packages() -> dict[str, ModuleType]:
    """Name -> stand-in, for sys.modules, of the packages that are not installed."""
    found: dict[str, ModuleType] = {}
    if importlib.util.find_spec("mxnet") is None:
        found |= _as_modules("mxnet", {"recordio": _recordio(), "image": _image(), "ndarray": _ndarray()})
        found["mxnet"].nd = found["mxnet.ndarray"]  # type: ignore[attr-defined]
    if importlib.util.find_spec("torchvision") is None:
        transforms = {kind.__name__: kind for kind in (Compose, ToPILImage, RandomHorizontalFlip, ToTensor, Normalize)}
        found |= _as_modules("torchvision", {"transforms": transforms, "datasets": {"ImageFolder": _image_folder}})
    return found


def _as_modules(name: str, parts: dict[str, dict[str, Any]]) -> dict[str, ModuleType]:
    package = ModuleType(name)
    found = {name: package}
    for part, content in parts.items():
        module = found[f"{name}.{part}"] = ModuleType(f"{name}.{part}")
        vars(module).update(content)
        setattr(package, part, module)
    return found


class Header(NamedTuple):
    """A record's header as mxnet returns it."""

    flag: int
    label: Any
    id: int
    id2: int


class MXIndexedRecordIO:
    """Reads records by key; pread, so that forked workers share the file."""

    def __init__(self, idx_path: str, uri: str, flag: str) -> None:
        if flag != "r":
            raise ValueError(f"flag: the stand-in only reads, got {flag!r}")
        lines = Path(idx_path).read_text(encoding="utf-8").splitlines()
        self.idx = {int(key): int(offset) for key, offset in (line.split() for line in lines)}
        self.keys = list(self.idx)
        self._file = os.open(uri, os.O_RDONLY)

    def read_idx(self, key: int) -> bytes:
        """One record."""
        offset = self.idx[key]
        parts: list[bytes] = []
        while True:
            magic, word = _PART.unpack(os.pread(self._file, _PART.size, offset))
            length, place = word & _LENGTH, word >> 29
            body = os.pread(self._file, length, offset + _PART.size)
            if place in (2, 3):
                parts.append(struct.pack("<I", magic))
            parts.append(body)
            if place in (0, 3):
                return parts[0] if len(parts) == 1 else b"".join(parts)
            offset += _PART.size + (length + 3) // 4 * 4


def _unpack(record: bytes) -> tuple[Header, bytes]:
    header, body = Header(*_HEADER.unpack_from(record)), record[_HEADER.size :]
    if header.flag > 0:
        labels = np.frombuffer(body, np.float32, header.flag)
        return header._replace(label=labels), body[header.flag * 4 :]
    return header, body


def _recordio() -> dict[str, Any]:
    return {"MXIndexedRecordIO": MXIndexedRecordIO, "unpack": _unpack}


class NDArray(np.ndarray):
    """An array with the one method of mxnet's that is called."""

    def asnumpy(self) -> np.ndarray:
        """A copy, as mxnet makes one."""
        return np.array(self)


def _image() -> dict[str, Any]:
    def imdecode(buffer: bytes) -> NDArray:
        image = cv2.imdecode(np.frombuffer(buffer, np.uint8), cv2.IMREAD_COLOR)
        result: NDArray = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).view(NDArray)
        return result

    def resize_short(image: NDArray, size: int) -> NDArray:
        height, width = image.shape[:2]
        scale = size / min(height, width)
        result: NDArray = cv2.resize(image, (round(width * scale), round(height * scale))).view(NDArray)
        return result

    return {"imdecode": imdecode, "resize_short": resize_short}


def _ndarray() -> dict[str, Any]:
    def transpose(data: NDArray, axes: Sequence[int]) -> NDArray:
        result: NDArray = np.ascontiguousarray(np.transpose(data, axes)).view(NDArray)
        return result

    def flip(data: NDArray, axis: int) -> NDArray:
        result: NDArray = np.ascontiguousarray(np.flip(data, axis)).view(NDArray)
        return result

    return {"transpose": transpose, "flip": flip}


class Compose(SimpleNamespace):
    """One transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        super().__init__(transforms=transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class ToPILImage:
    """(H, W, 3) uint8 -> Pillow."""

    def __call__(self, image: np.ndarray) -> Image.Image:
        return Image.fromarray(image, "RGB")


class RandomHorizontalFlip:
    """Mirrors every other image."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image


class ToTensor:
    """Pillow -> (3, H, W) float32 in 0 .. 1."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Normalize:
    """(x - mean) / std by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.as_tensor(values, dtype=image.dtype).view(-1, 1, 1) for values in (self.mean, self.std))
        return image.clone().sub_(mean).div_(std)


def _image_folder(*_: Any) -> NoReturn:
    raise RuntimeError("the stand-in for torchvision reads no image folders; install torchvision for that")
