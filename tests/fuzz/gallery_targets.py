"""Targets that read galleries' lists: IJB's metadata, file names of pedestrian sets and of TinyFace. No loop here."""

from __future__ import annotations

from pathlib import Path

from eval.ijb_metadata import IjbError, read_ijb_images, read_ijb_pairs, read_ijb_templates
from eval.retrieval_layouts import tinyface_labels
from eval.similarity_blocks import GalleryError
from sources.base import SourceError
from sources.reid import parse_reid_name
from tests.fuzz.target import Target, put

_MEDIA = b"1.jpg 1 69544\n2.jpg 1 69544\n3.jpg 2 7\n"
_POINTS = b"46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648 0.999"
_LANDMARKS = b"".join(b"%d.jpg %s\n" % (number, _POINTS) for number in (1, 2, 3))
_NUMBERS = (b"nan", b"inf", b"1e999", b"-1", b"0x1", b"1_0", b"9" * 400, "²".encode(), b"2147483648", b"1.0")


def _read_images(data: bytes, folder: Path) -> None:
    """The damaged file takes the place of the one that it looks like."""
    first = data.split(b"\n", 1)[0]
    is_landmarks = len(first.split()) > 6
    media = put(folder, "media.txt", _MEDIA if is_landmarks else data)
    read_ijb_images(media, put(folder, "landmarks.txt", data if is_landmarks else _LANDMARKS))


GALLERY_TARGETS = [
    Target("ijb_images", lambda _: [_MEDIA, _LANDMARKS], _read_images, (IjbError,), _NUMBERS, is_text=True,
           memory_factor=512),
    Target("ijb_pairs", lambda _: [b"1 11065 1\n1 11066 0\n", b"5 6 1"],
           lambda data, folder: read_ijb_pairs(put(folder, "pairs.txt", data)), (IjbError,), _NUMBERS, is_text=True,
           memory_factor=512),
    Target("ijb_templates", lambda _: [b"TEMPLATE_ID,SUBJECT_ID,FILENAME\n1,2,img/1.jpg\n1,2,img/2.jpg\n3,4,a.png\n"],
           lambda data, folder: read_ijb_templates(put(folder, "gallery.csv", data)), (IjbError,),
           (*_NUMBERS, b'"', b'"\n', b"\0"), is_text=True, memory_factor=512),
    Target("reid_names", lambda _: [b"0002_c1s1_000451_03.jpg", b"-1_c3s2_1.jpg", b"query/0005_c2_f0046985.jpg"],
           lambda data, _: parse_reid_name(data.decode("utf-8", "replace")), (SourceError,), _NUMBERS, is_text=True),
    Target("tinyface_names", lambda _: [b"4_12.jpg", b"Probe/12_3.jpg"],
           lambda data, _: tinyface_labels([data.decode("utf-8", "replace")]), (GalleryError,), _NUMBERS, is_text=True),
]  # fmt: skip
