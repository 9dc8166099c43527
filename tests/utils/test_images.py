"""Decoding, encoding and the one normalisation: colour order, sizes, damage."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.data import SHARED, needs_faces
from tests.records import picture
from utils.images import FACE, ImageError, ImageFormat, decode_image, encode_jpeg, to_model_input


def test_colours_come_back_in_rgb_order() -> None:
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 255
    decoded = decode_image(encode_jpeg(red))
    assert decoded[8, 8, 0] > 250
    assert decoded[8, 8, 2] < 5
    with_opencv = cv2.imdecode(np.frombuffer(encode_jpeg(red), np.uint8), cv2.IMREAD_COLOR)
    assert with_opencv[8, 8, 2] > 250, "OpenCV hands out BGR: the bytes themselves hold red"


def test_jpeg_keeps_a_smooth_picture() -> None:
    image = picture(3, 112, 112)
    assert np.abs(decode_image(encode_jpeg(image), FACE).astype(int) - image).max() <= 6
    assert len(encode_jpeg(image, 95)) > len(encode_jpeg(image, 30))


def test_png_is_exact_and_memoryviews_are_accepted() -> None:
    image = picture(4, 20, 30)
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    assert np.array_equal(decode_image(memoryview(png)), image)
    assert np.array_equal(decode_image(png, ImageFormat(20, 30, 3)), image)


def test_a_format_of_one_channel_gives_grey() -> None:
    grey = picture(5)[..., :1]
    decoded = decode_image(encode_jpeg(np.ascontiguousarray(grey), 100), ImageFormat(16, 16, 1))
    assert decoded.shape == (16, 16, 1)
    assert np.abs(decoded.astype(int) - grey).max() <= 3


def test_grey_files_become_three_equal_channels() -> None:
    decoded = decode_image(encode_jpeg(np.ascontiguousarray(picture(5)[..., :1])))
    assert decoded.shape == (16, 16, 3)
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_a_conversion_replaces_the_rgb_decoder_of_newer_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_jpeg(picture(6))
    expected = decode_image(data)
    monkeypatch.setattr("utils.images._DECODES_RGB", False)
    monkeypatch.setattr("utils.images._COLOR", cv2.IMREAD_COLOR)
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("kept", [1, 2, 10, 200, 0.5, -2, -1])
def test_a_jpeg_that_ends_early_is_refused(kept: float) -> None:
    data = encode_jpeg(picture(7, 64, 64))
    cut = data[: int(len(data) * kept)] if isinstance(kept, float) else data[:kept]
    with pytest.raises(ImageError, match=r"ends early|not a whole image"):
        decode_image(cut)


@pytest.mark.parametrize("kept", [20, 0.5, -6])
def test_a_png_that_ends_early_is_refused(kept: float) -> None:
    data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))[1].tobytes()
    with pytest.raises(ImageError, match="not a whole image"):
        decode_image(data[: int(len(data) * kept)] if isinstance(kept, float) else data[:kept])


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm() -> None:
    data = encode_jpeg(picture(8))
    assert np.array_equal(decode_image(data + b"\0\0camera notes"), decode_image(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"not an image at all", r"these 19 bytes \(they begin with 6e 6f 74 20\) are not a whole image")],
)
def test_bytes_that_are_no_image(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(data)


def test_another_size_than_the_format_names_both() -> None:
    with pytest.raises(ImageError, match=r"the image is 20x30 .*the data set's images are 112x112"):
        decode_image(encode_jpeg(picture(9, 20, 30)), FACE)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_cannot_be_encoded(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="cannot encode"):
        encode_jpeg(image)


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_out_of_range(quality: int) -> None:
    with pytest.raises(ImageError, match=f"JPEG quality {quality} is not in 1 .. 100"):
        encode_jpeg(picture(0), quality)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalisation(channels_last: bool) -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    result = to_model_input(images, ImageFormat(5, 7, 3, mean=100.0, std=50.0), channels_last=channels_last)
    assert result.dtype == torch.float32
    assert torch.equal(result, (images.permute(0, 3, 1, 2).float() - 100.0) / 50.0)
    assert result.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_faces_are_scaled_to_minus_one_to_one() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(24).reshape(1, 4, 4, 3)
    result = to_model_input(images)
    assert (result.min().item(), result.max().item()) == (-1.0, 1.0)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 8, 8, 3), torch.zeros(8, 8, 3, dtype=torch.uint8)],
)
def test_input_that_is_no_uint8_batch(images: torch.Tensor) -> None:
    with pytest.raises(ImageError, match=r"uint8 \(B, H, W, 3\), got"):
        to_model_input(images)


@needs_faces
def test_real_faces_decode_to_the_face_format() -> None:
    for path in sorted((SHARED / "faces_train").glob("*/0000.jpg"))[:20]:
        assert decode_image(path.read_bytes(), FACE).std() > 10
