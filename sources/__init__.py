"""Where training data comes from: one file per format, one function that opens any of them. No sampling, no batches."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from sources.base import Source, SourceError

__all__ = ["Source", "SourceError", "open_source", "test_location"]

# prefix -> (module, function taking the rest of the location); imported only when asked for.
_KINDS = {
    "mnist": ("sources.idx", "open_mnist"),
    "cifar10": ("sources.cifar", "open_cifar10"),
    "cifar100": ("sources.cifar", "open_cifar100"),
    "svhn": ("sources.svhn", "open_svhn"),
    "digits": ("sources.digits", "open_digits"),
    "imagenet32": ("sources.imagenet", "open_imagenet32"),
    "imagenet64": ("sources.imagenet", "open_imagenet64"),
    "folder": ("sources.image_files", "open_folder"),
    "cub200": ("sources.image_files", "open_cub200"),
    "market1501": ("sources.reid", "open_market1501"),
    "dukemtmc": ("sources.reid", "open_dukemtmc"),
    "synthetic": ("sources.synthetic", "open_synthetic"),
}
_NEED_NO_FOLDER = ("digits", "synthetic")
_SIZED = ("folder", "cub200")  # kinds that take :test, and :HEIGHTxWIDTH behind it
_HALVED = ("mnist", "cifar10", "cifar100", "svhn", "digits", "imagenet32", "imagenet64", "synthetic", *_SIZED)
_TEST_RECORDS = ("test.rec", "val.rec")
_HELP = (
    "give a folder with train.rec (and train.idx), a folder with one sub-folder of images per identity, "
    "mnist:DIR, cifar10:DIR, cifar100:DIR, svhn:DIR, imagenet32:DIR, imagenet64:DIR, folder:DIR, cub200:DIR (each also "
    "DIR:test, the last two also with :HEIGHTxWIDTH), market1501:DIR, dukemtmc:DIR (each also "
    "DIR:HEIGHTxWIDTH), digits, synthetic or synthetic:CLASSES:IMAGES (digits and synthetic also with :test)"
)


def open_source(location: str) -> Source:
    """Opens training data by its location.

    Args:
        location: a folder with train.rec (record set) or `:test` behind it (its test.rec or val.rec), a .rec file, a
            folder of identity folders, or `kind:DIR`.

    Raises:
        SourceError: nothing usable there; the text says what was looked for, what is there, and what to do.
        RecordError: a record set that is damaged or contradicts itself.
    """
    if not location:
        raise SourceError(f"no training data given (the location is empty): {_HELP}")
    kind, separator, rest = location.partition(":")
    if kind in _KINDS and (separator or kind in _NEED_NO_FOLDER):
        module, function = _KINDS[kind]
        source: Source = getattr(importlib.import_module(module), function)(rest)
        return source
    path = Path(location).expanduser()
    test = _test_records(location)
    if test is not None:
        path = test
    if path.is_file() and path.suffix == ".rec":
        from sources.records import RecordSource

        return RecordSource(path)
    if location.endswith(":test") and Path(location[:-5]).expanduser().is_dir():
        raise SourceError(
            f"{location}: looked for {' or '.join(_TEST_RECORDS)}, found {_listing(Path(location[:-5]).expanduser())}. "
            "What to do: put the packed test images there under that name, with its .idx beside it"
        )
    if not path.exists():
        raise SourceError(f"{path}: there is no such folder{_neighbours(path)}. What to do: {_HELP}")
    if not path.is_dir():
        raise SourceError(f"{path}: this is a file, but neither a .rec nor a folder. What to do: {_HELP}")
    if (path / "train.rec").exists():
        from sources.records import RecordSource

        return RecordSource(path / "train.rec")
    if any(entry.is_dir() for entry in path.iterdir()):
        from sources.folder import FolderSource

        return FolderSource(path)
    raise SourceError(
        f"{path}: looked for train.rec or identity folders, found {_listing(path) or 'nothing'}. What to do: {_HELP}"
    )


def test_location(location: str) -> str | None:
    """Where the test half of a training location is, for `open_source`; whether it is there, only opening tells.

    Returns:
        The location with `:test`; None where it is a test half itself, or of a kind without one.
    """
    kind, separator, rest = location.partition(":")
    if kind not in _HALVED or not (separator or kind in _NEED_NO_FOLDER):
        is_set = (Path(location).expanduser() / "train.rec").exists()
        return f"{location}:test" if is_set and _test_records(f"{location}:test") else None
    size = ""
    if kind in _SIZED and re.search(r":\d{1,4}x\d{1,4}$", rest):
        rest, _, size = rest.rpartition(":")
    if rest == "test" or rest.endswith(":test"):
        return None
    rest = rest.removesuffix("train").removesuffix(":") if rest == "train" or rest.endswith(":train") else rest
    return ":".join(part for part in (kind, rest, "test", size) if part)


def _test_records(location: str) -> Path | None:
    """The record file that `DIR:test` means: DIR/test.rec, else DIR/val.rec; None where it means none."""
    folder, separator, half = location.rpartition(":")
    if not separator or half != "test" or Path(location).expanduser().exists():
        return None
    return next((path for name in _TEST_RECORDS if (path := Path(folder).expanduser() / name).is_file()), None)


def _neighbours(path: Path) -> str:
    """What lies where the path was expected: most often a letter is wrong."""
    parent = path.parent
    if not parent.is_dir():
        return f" ({parent} does not exist either)"
    listing = _listing(parent)
    return f"; {parent} holds {listing}" if listing else f"; {parent} is empty"


def _listing(folder: Path, limit: int = 8) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
