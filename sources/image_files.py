"""Image files of any size as training data of one size: class folders with halves, and CUB-200-2011. Packs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sources.base import SourceError
from sources.folder import list_identities, read_image_file
from sources.listed_files import ListedFiles, split_size
from utils.images import FACE, ImageFormat

_CUB_HOME = "CUB_200_2011"  # the folder in the published archive


def open_folder(rest: str) -> ImageFilesSource:
    """Opens `DIR[:test][:HEIGHTxWIDTH]`: DIR/train, or DIR/test (else DIR/val), with one folder of images per class.

    Labels follow the sorted names in DIR/train, for both halves.

    Raises:
        SourceError: a folder is missing, one without images, or a test class that is not in train.
    """
    folder, test, size = _taken_apart("folder", rest)
    if not (folder / "train").is_dir():
        raise SourceError(
            f"folder:{rest}: {folder} holds no train; it needs train and test (or val), with one folder of images per "
            "class in each. A folder of identities without halves is named without `folder:`"
        )
    names, files, _ = list_identities(folder / "train")
    if not test:
        return _of_classes("folder", folder / "train", names, names, files, size)
    half = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if half is None:
        raise SourceError(f"folder:{rest}: {folder} holds neither test nor val, which are its test half")
    found, files, _ = list_identities(half)
    unknown = [name for name in found if name not in set(names)]
    if unknown:
        raise SourceError(
            f"{half / unknown[0]}: {folder / 'train'} has no class {unknown[0]!r}, so no label stands for it "
            f"({len(unknown)} of {len(found)} test classes are unknown): rename or remove it"
        )
    return _of_classes("folder", half, names, found, files, size)


def open_cub200(rest: str) -> ImageFilesSource:
    """Opens `DIR[:test][:HEIGHTxWIDTH]`, Caltech-UCSD Birds-200-2011: 5994 training, 5794 test images of 200 classes.

    The halves are those of train_test_split.txt; C. Wah et al., "The Caltech-UCSD Birds-200-2011 dataset", 2011. Whole
    images, not the birds' boxes. Labels are the files' class numbers less one.

    Raises:
        SourceError: a list is missing or damaged, or the lists contradict each other.
    """
    folder, test, size = _taken_apart("cub200", rest)
    home = folder / _CUB_HOME if (folder / _CUB_HOME).is_dir() else folder
    paths = _read_list(home / "images.txt")
    classes, split = (_read_numbers(home / name, paths) for name in ("image_class_labels.txt", "train_test_split.txt"))
    for number, path in paths.items():
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise SourceError(f"{home / 'images.txt'}: image {number} is {path!r}, outside of the set's own folder")
    num_classes = max(classes.values())
    present = set(classes.values())
    if min(present) < 1 or len(present) != num_classes:
        raise SourceError(
            f"{home / 'image_class_labels.txt'}: {len(present)} classes with numbers {min(present)} .. {num_classes}; "
            "they must be 1, 2, ... without gaps"
        )
    if not set(split.values()) <= {0, 1}:
        raise SourceError(f"{home / 'train_test_split.txt'}: each image has 1 (training) or 0 (test)")
    wanted = [number for number in sorted(paths) if split[number] == (0 if test else 1)]
    if not wanted:
        raise SourceError(f"{home / 'train_test_split.txt'}: no image is for {'testing' if test else 'training'}")
    by_class = {classes[number]: paths[number].split("/")[0] for number in sorted(paths)}
    names = [by_class[label] for label in range(1, num_classes + 1)]
    labels = np.array([classes[number] - 1 for number in wanted], dtype=np.int64)
    return ImageFilesSource("cub200", home / "images", [paths[number] for number in wanted], labels, names, size)


class ImageFilesSource(ListedFiles):
    """Image files, scaled until the shorter side fits, of which the middle is cut out.

    That is how papers on fine-grained classification read CUB: the aspect ratio is kept, the rim is lost. Shrinking
    averages areas, growing is bilinear. Files are decoded and scaled anew in every epoch, in the reader processes.

    Attributes:
        image_format: the size asked for, 112x112 without; 3 channels, constants as for faces.
        num_classes: number of names.
        names: of the classes, by label.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        files: Sequence[str],
        labels: np.ndarray,
        names: Sequence[str],
        size: tuple[int, int] = FACE.shape[:2],
    ) -> None:
        """Takes file names below `path`, int64 labels (N,), the classes' names, and (height, width); reads nothing."""
        super().__init__(kind, path, files, labels, len(names), ImageFormat(*size, 3))
        self.names = list(names)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image and label.

        Raises:
            ImageError: damage; names the file.
            SourceError: the file has gone.
        """
        path, label = self.path_and_label(index)
        return middle(read_image_file(path), self.image_format.shape[:2]), label


def middle(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image scaled until it just covers the size, and its middle.

    Args:
        image: uint8 (H, W, 3).
        size: (height, width) in pixels.

    Returns:
        uint8 (height, width, 3); the same object where it has that size.
    """
    if image.shape[:2] == size:
        return image
    scale = max(wanted / there for wanted, there in zip(size, image.shape[:2], strict=True))
    height, width = (max(wanted, round(there * scale)) for wanted, there in zip(size, image.shape[:2], strict=True))
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return np.ascontiguousarray(scaled[top : top + size[0], left : left + size[1]])


def _of_classes(
    kind: str, half: Path, names: list[str], found: list[str], files: list[list[str]], size: tuple[int, int]
) -> ImageFilesSource:
    label = {name: number for number, name in enumerate(names)}
    labels = np.repeat(np.array([label[name] for name in found], dtype=np.int64), [len(part) for part in files])
    below = [f"{name}/{file}" for name, part in zip(found, files, strict=True) for file in part]
    return ImageFilesSource(kind, half, below, labels, names, size)


def _taken_apart(kind: str, rest: str) -> tuple[Path, bool, tuple[int, int]]:
    """(folder, wants the test half, (height, width)) of `DIR[:test][:HEIGHTxWIDTH]`."""
    text, size = split_size(kind, rest)
    start, separator, half = text.rpartition(":")
    is_half = bool(separator) and half in ("train", "test")
    folder = Path(start if is_half else text).expanduser()
    if not rest or not folder.is_dir():
        raise SourceError(
            f"{kind}:{rest}: there is no folder {str(folder)!r}; give {kind}:DIR or {kind}:DIR:test, each also with "
            ":HEIGHTxWIDTH"
        )
    return folder, is_half and half == "test", size or FACE.shape[:2]


def _read_list(path: Path) -> dict[int, str]:
    """Lines of `NUMBER TEXT`; numbers must not repeat."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read: {error.strerror or error}; unpack CUB_200_2011.tgz there, with its lists"
        ) from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: this is no text; unpack CUB_200_2011.tgz again") from None
    found: dict[int, str] = {}
    for place, line in enumerate(lines, 1):
        number, _, text = line.strip().partition(" ")
        if not (number.isascii() and number.isdigit() and len(number) < 10 and text) or int(number) in found:
            raise SourceError(f"{path}, line {place}: {line[:80]!r} is not an image's own number and a value")
        found[int(number)] = text
    if not found:
        raise SourceError(f"{path}: it is empty; unpack CUB_200_2011.tgz again")
    return found


def _read_numbers(path: Path, paths: dict[int, str]) -> dict[int, int]:
    """The same with whole numbers as values, for the very images of `paths`."""
    found = _read_list(path)
    if found.keys() != paths.keys():
        odd = min(found.keys() ^ paths.keys())
        raise SourceError(f"{path}: image {odd} is in it or in images.txt, but not in both")
    wrong = [number for number, text in found.items() if not (text.isascii() and text.isdigit() and len(text) < 7)]
    if wrong:
        raise SourceError(f"{path}: image {wrong[0]} has {found[wrong[0]][:40]!r}, which is no whole number")
    return {number: int(text) for number, text in found.items()}
