"""The manifest of a checkpoint: its files with sizes and hashes, and whether they still are so. No tensors here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from utils.files import sha256_of, write_text_whole

MANIFEST = "manifest.json"
FORMAT = 2  # 1 had sizes, but no hashes
_OWN_HASH = "manifest_sha256"
_MAX_BYTES = 16 << 20
ADVICE = "Delete this folder to resume from an earlier one"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read: which one, why, and what to do."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was written.

    Attributes:
        reason: which file, and what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}. {ADVICE}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it was written; `sha256` is None in format 1."""

    size: int
    sha256: str | None


def write_manifest(
    folder: Path, files: Mapping[str, FileRecord], step: int, world_size: int, torch_version: str,
    progress: Mapping[str, Any],
) -> None:  # fmt: skip
    """Writes the manifest, whole and synced, as the last file of a checkpoint; it carries a hash of itself.

    Raises:
        ValueError: `progress` holds what JSON has no word for, such as NaN.
    """
    content = {
        "format": FORMAT,
        "step": step,
        "world_size": world_size,
        "torch": torch_version,
        "files": {name: asdict(record) for name, record in sorted(files.items())},
        "progress": dict(progress),
    }
    content[_OWN_HASH] = _hash_of(content)
    write_text_whole(json.dumps(content, indent=1, allow_nan=False), folder / MANIFEST)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after comparing every file's size with it (`check_file` compares hashes).

    Raises:
        DamagedError: no manifest, one that was changed, or a file that is missing or of another size.
        CheckpointError: a format of a later version.
    """
    try:
        size = (path / MANIFEST).stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"{size} bytes; at most {_MAX_BYTES} are read")
        manifest = json.loads((path / MANIFEST).read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(path, f"{MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict):
        raise DamagedError(path, f"{MANIFEST} cannot be read (a {type(manifest).__name__} instead of named values)")
    given = manifest.pop(_OWN_HASH, None)
    if given is not None and given != _hash_of(manifest):
        raise DamagedError(path, f"{MANIFEST} was changed after it was written")
    version = manifest.get("format")
    if version not in (1, FORMAT) or (version != 1 and given is None):
        text = f"format {version!r}, this version reads 1 .. {FORMAT}"
        # With a right hash of its own it is not damaged, only written by a later version.
        raise DamagedError(path, f"{MANIFEST}: {text}") if given is None else CheckpointError(f"{path}: {text}")
    if not isinstance(manifest.get("progress"), dict) or not isinstance(manifest.get("step"), int):
        raise DamagedError(path, f"{MANIFEST} lacks `progress` or `step`")
    for name, record in file_records(path, manifest).items():
        actual = size_of(path / name)
        if actual != record.size:
            found = "is missing" if actual is None else f"holds {actual}"
            raise DamagedError(path, f"{name} should hold {record.size} bytes but {found}")
    return cast("dict[str, Any]", manifest)


def file_records(path: Path, manifest: Mapping[str, Any]) -> dict[str, FileRecord]:
    """Name -> record of every file; names that lead out of the folder are refused.

    Raises:
        DamagedError: anything else than names, sizes and hashes.
    """
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise DamagedError(path, f"{MANIFEST} names no files")
    records = {}
    for name, value in files.items():
        size, digest = (value.get("size"), value.get("sha256")) if isinstance(value, dict) else (value, None)
        has_hash = isinstance(digest, str) or manifest["format"] == 1
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not has_hash:
            raise DamagedError(path, f"{MANIFEST} has no size and hash for {name!r}")
        if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
            raise DamagedError(path, f"{MANIFEST} names {name!r}, which is no file of this folder")
        records[name] = FileRecord(size, digest)
    return records


def size_of(path: Path) -> int | None:
    """Bytes of a plain file; None where there is none of this name, also where no file can have it."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def check_file(path: Path, name: str, record: FileRecord) -> str | None:
    """Reads a whole file; what is wrong with it, or None."""
    try:
        found = sha256_of(path / name) if record.sha256 is not None else None
    except (OSError, ValueError) as error:
        return f"{name} cannot be read ({error})"
    if found != record.sha256:
        return f"the content of {name} was changed after it was written (SHA-256 {found}, not {record.sha256})"
    return None


def _hash_of(manifest: Mapping[str, Any]) -> str:
    """Hash of the values, however they are laid out as text."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
