"""Image formats as JSON: back to the last bit, and what no run wrote is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from utils.image_format_file import IMAGE_FORMAT, from_json, read_image_format, to_json, write_image_format
from utils.images import FACE, ImageError, ImageFormat

MEAN = np.random.default_rng(2).random((2, 3, 3), dtype=np.float32)
FORMAT = ImageFormat(2, 3, 3, mean=0.1 + 0.2, std=1 / 3, mean_image=MEAN.astype("<f4").tobytes())


@pytest.mark.parametrize("image_format", [FACE, FORMAT])
def test_a_format_comes_back(image_format: ImageFormat, tmp_path: Path) -> None:
    assert from_json(json.loads(json.dumps(to_json(image_format))), "here") == image_format
    write_image_format(tmp_path, image_format, "unit")
    assert read_image_format(tmp_path) == read_image_format(tmp_path, "unit") == image_format
    assert read_image_format(tmp_path, "mean_image") is None
    assert read_image_format(tmp_path / "elsewhere") is None


def test_dumps_of_before_mean_images_are_read() -> None:
    old = {"height": 8, "width": 8, "channels": 3, "mean": 127.5, "std": 127.5}
    assert from_json(old, "here") == ImageFormat(8, 8, 3)
    assert to_json(ImageFormat(8, 8, 3)) == old


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "\xff", '{"height": 2}', json.dumps({**to_json(FORMAT), "mean_image": "AAAA"}),
        json.dumps({**to_json(FORMAT), "mean_image": "no base64"}), json.dumps({**to_json(FORMAT), "mean_image": 5}),
        json.dumps({**to_json(FACE), "std": 0}), json.dumps({**to_json(FACE), "std": float("nan")}),
        json.dumps({**to_json(FACE), "height": 0}), json.dumps({**to_json(FACE), "width": float("inf")}), "[" * 100_000,
    ],
)  # fmt: skip
def test_what_no_run_wrote(content: str, tmp_path: Path) -> None:
    (tmp_path / IMAGE_FORMAT).write_bytes(content.encode("latin-1"))
    with pytest.raises(ImageError, match=IMAGE_FORMAT):
        read_image_format(tmp_path)
