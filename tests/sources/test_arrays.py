"""The classification sets: MNIST, CIFAR, SVHN and noise, from files that these tests write."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from sources import Source, SourceError, open_source
from sources.synthetic import SyntheticSource
from tests.data import SHARED, needs_mnist

RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = np.arange(20) % 10


def assert_holds(source: Source, images: np.ndarray, labels: np.ndarray) -> None:
    assert len(source) == len(labels)
    copy = pickle.loads(pickle.dumps(source))
    for index, label in enumerate(labels.tolist()):
        image, found = copy.read(index)
        assert found == label
        assert np.array_equal(image, images[index])
        assert image.shape == source.image_format.shape
    assert np.array_equal(source.class_counts(), np.bincount(labels, minlength=source.num_classes))


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, compress: bool = False) -> None:
    for prefix, images, labels in (("train", GREY, LABELS), ("t10k", GREY[::-1], LABELS[::-1])):
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{prefix}-{what}-ubyte{'.gz' if compress else ''}"
            path.write_bytes(gzip.compress(data) if compress else data)


@pytest.mark.parametrize("compress", [False, True])
def test_mnist(compress: bool, tmp_path: Path) -> None:
    write_mnist(tmp_path, compress)
    assert_holds(open_source(f"mnist:{tmp_path}"), GREY[..., None], LABELS)
    assert_holds(open_source(f"mnist:{tmp_path}:test"), GREY[::-1][..., None], LABELS[::-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"announces 15680 bytes \(20, 28, 28\), only 15679 came"),
        (lambda data: data + b"x", "more came"),
        (lambda data: b"\0\0\x0d\x03" + data[4:], "begins with 00 00 08 03, this one with 00 00 0d 03"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "it is damaged"),
        (lambda data: b"", "this one with nothing"),
    ],
)
def test_damaged_idx_files(damage, message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=f"train-images-idx3-ubyte: .*{message}"):
        open_source(f"mnist:{tmp_path}")


@pytest.mark.parametrize("kept", [5, 40, -4])
def test_damaged_gzip_data(kept: int, tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SourceError, match=r"train-images-idx3-ubyte.gz: the gzip data is damaged"):
        open_source(f"mnist:{tmp_path}")


def test_unequal_numbers_and_labels_out_of_range(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(LABELS[:-1]))
    with pytest.raises(SourceError, match="20 images and 19 labels"):
        open_source(f"mnist:{tmp_path}")
    labels.write_bytes(idx(np.where(np.arange(20) == 4, 10, LABELS)))
    with pytest.raises(SourceError, match=r"image 4 has label 10, allowed are 0 .. 9"):
        open_source(f"mnist:{tmp_path}")


def test_a_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train-images").write_bytes(b"")
    with pytest.raises(SourceError, match=r"for train-images-idx3-ubyte or .*, found train-images\. Put the idx"):
        open_source(f"mnist:{tmp_path}")


@needs_mnist
def test_the_real_mnist() -> None:
    source = open_source(f"mnist:{SHARED / 'mnist'}")
    assert (len(source), source.class_counts()[:3].tolist()) == (60000, [5923, 6742, 5958])
    assert len(open_source(f"mnist:{SHARED / 'mnist'}:test")) == 10000


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_rows(images: np.ndarray, *labels: np.ndarray) -> bytes:
    return np.concatenate([*(part.astype(np.uint8)[:, None] for part in labels), planes(images)], axis=1).tobytes()


@pytest.mark.parametrize("archive", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(archive: str, tmp_path: Path) -> None:
    folder = tmp_path / archive
    folder.mkdir(exist_ok=True)
    for number in range(5):
        part = slice(4 * number, 4 * number + 4)
        (folder / f"data_batch_{number + 1}.bin").write_bytes(cifar_rows(COLOUR[part], LABELS[part]))
    (folder / "test_batch.bin").write_bytes(cifar_rows(COLOUR[:3], LABELS[:3]))
    assert_holds(open_source(f"cifar10:{tmp_path}"), COLOUR, LABELS)
    assert_holds(open_source(f"cifar10:{tmp_path}:test"), COLOUR[:3], LABELS[:3])


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10_python(protocol: int, tmp_path: Path) -> None:
    for number in range(5):
        part = slice(4 * number, 4 * number + 4)
        content = {b"data": planes(COLOUR[part]), b"labels": LABELS[part].tolist(), b"batch_label": b"training"}
        (tmp_path / f"data_batch_{number + 1}").write_bytes(pickle.dumps(content, protocol=protocol))
    assert_holds(open_source(f"cifar10:{tmp_path}"), COLOUR, LABELS)


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    fine = 5 * np.arange(20)
    (tmp_path / "train.bin").write_bytes(cifar_rows(COLOUR, LABELS, fine))
    assert_holds(open_source(f"cifar100:{tmp_path}"), COLOUR, fine)
    content = {b"data": planes(COLOUR), b"fine_labels": fine.tolist(), b"coarse_labels": LABELS.tolist()}
    (tmp_path / "test").write_bytes(pickle.dumps(content, protocol=2))
    assert_holds(open_source(f"cifar100:{tmp_path}:test"), COLOUR, fine)


class _Attack:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("attacked"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": _Attack(), b"labels": []}), "asks for 'pathlib.*touch'; a CIFAR batch may hold only"),
        (pickle.dumps({b"labels": [1]}), "it needs data and labels"),
        (pickle.dumps({b"data": planes(COLOUR), b"labels": [1]}), "with a label each"),
        (pickle.dumps([1, 2]), "no CIFAR batch"),
        (b"", "no CIFAR batch"),
        (b"not a pickle", "no CIFAR batch"),
    ],
)
def test_cifar_pickles_that_hold_something_else(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(SourceError, match=f"test_batch: .*{message}"):
        open_source(f"cifar10:{tmp_path}:test")
    assert not (tmp_path / "attacked").exists()


def test_a_cut_cifar_batch(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(cifar_rows(COLOUR, LABELS)[:-7])
    with pytest.raises(SourceError, match="are no multiple of 3073"):
        open_source(f"cifar10:{tmp_path}:test")


def test_svhn_counts_ten_as_zero(tmp_path: Path) -> None:
    labels = np.where(LABELS == 0, 10, LABELS).astype(np.uint8)
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": COLOUR.transpose(1, 2, 3, 0), "y": labels[:, None]})
    assert_holds(open_source(f"svhn:{tmp_path}"), COLOUR, LABELS)


@pytest.mark.parametrize("content", [b"no mat file at all", b""])
def test_a_damaged_svhn_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "test_32x32.mat").write_bytes(content)
    with pytest.raises(SourceError, match=r"test_32x32.mat: no readable .mat file with X and y"):
        open_source(f"svhn:{tmp_path}:test")


def test_an_svhn_file_of_other_shape(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": np.zeros((4, 4)), "y": np.zeros(4)})
    with pytest.raises(SourceError, match=r"X has shape \(4, 4\), expected \(32, 32, 3, images\)"):
        open_source(f"svhn:{tmp_path}")


def test_noise_repeats_itself_and_never_another() -> None:
    source = SyntheticSource(3, 8)
    images = np.stack([source.read(index)[0] for index in range(8)])
    assert_holds(source, images, np.arange(8) % 3)
    assert len({image.tobytes() for image in images}) == 8
    assert abs(images.mean() - 127.5) < 1
    assert open_source("synthetic").num_classes == 10_000
