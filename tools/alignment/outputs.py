"""What an aligned folder holds and what an unfinished run leaves for the next: names, settings, journal. No pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tools.alignment.detector import Face
from tools.alignment.landmarks import Landmarks, face_of, numbers_of, read_landmarks, write_landmarks
from utils.errors import DataError
from utils.files import lock_folder, unlock_folder, write_text_whole

REPORT, LANDMARKS, JOURNAL = "align.json", "landmarks.csv", ".align.journal"


class OutputError(DataError):
    """A folder that cannot take aligned faces as asked; the text says what is in it and what to do."""


def output_names(names: Sequence[str], suffix: str) -> list[str]:
    """Where each image's face goes below the output folder: its own path with another suffix.

    Files that differ in their suffix alone (a.jpg, a.png) keep it (a.jpg.jpg, a.png.jpg). Steps upwards and roots of
    paths that a list may name are left out.

    Raises:
        OutputError: two images that would have one output.
    """
    plain = [_inside(name) for name in names]
    stems: dict[str, int] = {}
    for path in plain:
        stem = str(path.with_suffix(""))
        stems[stem] = stems.get(stem, 0) + 1
    outputs: dict[str, str] = {}
    for name, path in zip(names, plain, strict=True):
        keeps = stems[str(path.with_suffix(""))] > 1
        output = f"{path if keeps else path.with_suffix('')}{suffix}"
        if output in outputs:
            raise OutputError(f"{outputs[output]} and {name} would both be written to {output}: align them apart")
        outputs[output] = name
    return list(outputs)


def _inside(name: str) -> PurePosixPath:
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    return PurePosixPath(*parts)


def require_apart(location: Path, sources: Sequence[Path], folder: Path, outputs: Sequence[str]) -> None:
    """Refuses to write among the photographs: they would be replaced, or the next run would align the crops again.

    Raises:
        OutputError: see above.
    """
    inside = location.is_dir() and folder.resolve().is_relative_to(location.resolve())
    taken = {os.path.realpath(folder / output) for output in outputs} if folder.is_dir() else set()
    hit = next((source for source in sources if os.path.realpath(source) in taken), None) if taken else None
    if inside or hit is not None:
        where = f"would replace {hit}" if hit is not None else f"lies in {location}, whose images are to be aligned"
        raise OutputError(f"{folder} {where}: choose a folder beside the photographs")


class Journal:
    """The faces of an output folder: those of its landmarks.csv and, while a run is unfinished, of its journal.

    The journal gets a line for each face, after the face's file is there. A run that was killed goes on from it.

    Args:
        folder: of the outputs; made where it is not there.
        settings: JSON-able; what the outputs depend on.
        overwrite: forget what is there.

    Raises:
        OutputError: the folder was aligned with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
        self.folder, self._settings = folder, settings
        self.faces: dict[str, Face] = {}
        self._path = folder / JOURNAL
        try:
            self._lock = lock_folder(folder)
        except BlockingIOError:
            raise OutputError(f"{folder}: another process is aligning into it; wait for it, or stop it") from None
        if overwrite:
            for name in (JOURNAL, REPORT, LANDMARKS):
                (folder / name).unlink(missing_ok=True)
        else:
            try:
                self._recall()
            except BaseException:
                self._release()
                raise
        folder.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.is_file()
        self._stream = self._path.open("ab")
        if is_new:
            self._write({"settings": settings})

    def is_kept(self, name: str, output: str, source: Path) -> bool:
        """Whether the output is there, its face is known, and the photograph has not been changed since."""
        if name not in self.faces:
            return False
        try:
            return (self.folder / output).stat().st_mtime_ns >= source.stat().st_mtime_ns
        except OSError:
            return False

    def add(self, name: str, face: Face) -> None:
        """Notes a face whose file has been written."""
        self.faces[name] = face
        self._write({"name": name, "face": numbers_of(face)})

    def pause(self) -> None:
        """Ends this run; the next one goes on."""
        self._stream.close()
        self._release()

    def _release(self) -> None:
        unlock_folder(self.folder, self._lock)

    def finish(self, report: dict[str, Any]) -> None:
        """Writes landmarks.csv and the report, and removes the journal."""
        write_landmarks(self.folder / LANDMARKS, sorted(self.faces.items()))
        text = json.dumps({**report, "settings": self._settings}, indent=1)
        write_text_whole(text + "\n", self.folder / REPORT)
        self._stream.close()
        self._path.unlink()
        self._release()

    def _recall(self) -> None:
        known: dict[str, Any] | None = None
        if (self.folder / REPORT).is_file():
            known = _json_of(self.folder / REPORT).get("settings")
        lines = list(self._lines())
        if lines:
            known = lines[0].get("settings")
        if known is not None and known != self._settings:
            different = [f"{key}: {known.get(key)!r}, now {self._settings.get(key)!r}"
                         for key in sorted(self._settings) if known.get(key) != self._settings.get(key)]  # fmt: skip
            raise OutputError(
                f"{self.folder} was aligned with other settings ({'; '.join(different) or 'unknown'}): give the same, "
                "another folder, or --overwrite"
            )
        if (self.folder / LANDMARKS).is_file() and known is not None:
            landmarks: Landmarks = read_landmarks(self.folder / LANDMARKS)
            self.faces = {name: face for name in landmarks.names() if (face := landmarks.get(name)) is not None}
        for line in lines[1:]:
            self.faces[line["name"]] = face_of(line["face"])

    def _lines(self) -> Iterator[dict[str, Any]]:
        """What a killed run wrote; its last line may be half."""
        if not self._path.is_file():
            return
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self._path.open("r+b") as stream:
                stream.truncate(len(whole))
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                sound = "settings" in entry or (isinstance(entry["name"], str) and len(map_floats(entry["face"])) == 15)
            except (ValueError, KeyError, TypeError, RecursionError):
                sound = False
            if not sound:
                raise OutputError(f"{self._path}: damaged; remove it, or --overwrite")
            yield entry

    def _write(self, entry: dict[str, Any]) -> None:
        self._stream.write(json.dumps(entry).encode() + b"\n")
        self._stream.flush()


def map_floats(values: Any) -> list[float]:
    """The values as floats; TypeError or ValueError where they are none."""
    return [float(value) for value in values]


def _json_of(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: not the report of an alignment ({error}); remove it, or --overwrite") from None
    return content if isinstance(content, dict) else {}
