"""Where training data comes from: one file per format, one function that opens any of them. No sampling, no batches."""

from __future__ import annotations

import importlib
from pathlib import Path

from sources.base import Source, SourceError

__all__ = ["Source", "SourceError", "open_source"]

# prefix -> (module, function taking the rest of the location); imported only when asked for.
_KINDS = {
    "mnist": ("sources.idx", "open_mnist"),
    "cifar10": ("sources.cifar", "open_cifar10"),
    "cifar100": ("sources.cifar", "open_cifar100"),
    "svhn": ("sources.svhn", "open_svhn"),
    "market1501": ("sources.reid", "open_market1501"),
    "dukemtmc": ("sources.reid", "open_dukemtmc"),
    "synthetic": ("sources.synthetic", "open_synthetic"),
}
_HELP = (
    "give a folder with train.rec (and train.idx), a folder with one sub-folder of images per identity, "
    "mnist:DIR, cifar10:DIR, cifar100:DIR, svhn:DIR (each also DIR:test), market1501:DIR, dukemtmc:DIR (each also "
    "DIR:HEIGHTxWIDTH), synthetic or synthetic:CLASSES:IMAGES"
)


def open_source(location: str) -> Source:
    """Opens training data by its location.

    Args:
        location: a folder with train.rec (record set), a .rec file, a folder of identity folders, or `kind:DIR`.

    Raises:
        SourceError: nothing usable there; the text says what was looked for, what is there, and what to do.
        RecordError: a record set that is damaged or contradicts itself.
    """
    if not location:
        raise SourceError(f"no training data given (the location is empty): {_HELP}")
    kind, separator, rest = location.partition(":")
    if kind in _KINDS and (separator or kind == "synthetic"):
        module, function = _KINDS[kind]
        source: Source = getattr(importlib.import_module(module), function)(rest)
        return source
    path = Path(location).expanduser()
    if path.is_file() and path.suffix == ".rec":
        from sources.records import RecordSource

        return RecordSource(path)
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
