"""Image sizes from headers: the formats that are read, the ones that are not, and bombs."""

from __future__ import annotations

import struct

import cv2
import pytest

from tests.records import picture
from utils.image_header import image_size
from utils.images import FACE, ImageError, decode_image, encode_jpeg

PICTURE = picture(0, 40, 24)
ENCODED = {
    "jpeg": cv2.imencode(".jpg", PICTURE)[1].tobytes(),
    "progressive": cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "restarts": cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes(),
    "png": cv2.imencode(".png", PICTURE)[1].tobytes(),
    "bmp": cv2.imencode(".bmp", PICTURE)[1].tobytes(),
    "webp": cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 60])[1].tobytes(),
    "webp without loss": cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes(),
}


@pytest.mark.parametrize("name", ENCODED)
def test_sizes(name: str) -> None:
    data = ENCODED[name]
    assert image_size(data) == image_size(memoryview(data)) == (40, 24)
    assert decode_image(data).shape == (40, 24, 3)
    for length in range(len(data)):
        assert image_size(data[:length]) in (None, (40, 24))


def test_a_jpeg_with_bytes_between_its_segments() -> None:
    data = ENCODED["jpeg"]
    assert image_size(data[:2] + b"\xff\xff\xff" + data[2:]) == (40, 24)
    assert image_size(data[:2] + b"junk" + data[2:]) == (40, 24)
    assert image_size(data[:2] + b"\xff\xe1\x00\x04\xff\xc0" + data[2:]) == (40, 24), (
        "a segment's contents are no markers"
    )
    assert image_size(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 2000 + data[2:]) is None
    assert image_size(b"\xff\xd8" + b"\xff" * 100) is None


@pytest.mark.parametrize(
    "start", [b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  \r\n\x87\n", b"P6\n24 40\n255\n", b"GIF89a", b"#?RADIANCE\n"]
)
def test_other_formats_never_reach_their_decoders(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.images.cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="are not a whole image"):
        decode_image(start + bytes(5000))


def test_a_png_whose_parts_do_not_fit_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV takes the memory that a part announces; without an end it read a length from behind the file: 2 GiB."""
    sound = ENCODED["png"]
    assert image_size(sound + b"more") == (40, 24)
    monkeypatch.setattr("utils.images.cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    broken_end = sound[:-6] + b"\0\0" + sound[-4:]
    long_part = sound[:33] + struct.pack(">I", 0x7FFFFFF0) + sound[37:]
    for data in (broken_end, long_part, sound[:-1], sound[:40]):
        with pytest.raises(ImageError, match="are not a whole image"):
            decode_image(data)


def bomb(name: str, size: int) -> bytes:
    """The image with another size in its header."""
    data = bytearray(ENCODED[name])
    if name == "jpeg":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", size, size)
    elif name == "png":
        data[16:24] = struct.pack(">II", size, size)
    else:
        data[18:26] = struct.pack("<ii", size, -size)
    return bytes(data)


@pytest.mark.parametrize("name", ["jpeg", "png", "bmp"])
@pytest.mark.parametrize("size", [20000, 60000])
def test_bombs_are_refused_by_their_header(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.images.cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=f"announce an image of {size}x{size} pixels"):
        decode_image(bomb(name, size))
    with pytest.raises(
        ImageError, match=f"the image is {size}x{size} .height x width., the data set's images are 112x112"
    ):
        decode_image(bomb(name, size), FACE)


def test_an_image_that_its_camera_held_sideways_is_turned_and_fits() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    data = ENCODED["jpeg"]
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert image_size(turned) == (40, 24)
    assert decode_image(turned).shape == (24, 40, 3)
    from utils.images import ImageFormat

    assert decode_image(turned, ImageFormat(24, 40, 3)).shape == (24, 40, 3)
    with pytest.raises(ImageError, match="24x40"):
        decode_image(turned, ImageFormat(40, 24, 3))
    assert encode_jpeg(PICTURE)[:2] == b"\xff\xd8"
