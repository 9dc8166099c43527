"""Config files that are data, JSON and YAML: read, never run. No key is checked here; Python: config_python.py."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.config_values import ConfigError, Text, misread, shortened
from utils.config_yaml import MAX_DEPTH, read_yaml

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 256 << 10
_WHITE = re.compile(r"[ \t\r\n]*")


def read_text_config(path: Path, where: str, keeps_text: Callable[[str], bool] = lambda key: False) -> Text:
    """Reads a .yaml, .yml or .json file that holds one mapping from keys to values.

    Args:
        path: the file.
        where: what errors call it.
        keeps_text: whether a key wants text, so that YAML's unquoted `output: 2024` stays "2024".

    Raises:
        ConfigError: anything that is no such file, with the line where there is one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig") if len(data) <= MAX_BYTES else ""
    except OSError as error:
        raise misread(where, None, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise misread(where, None, f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    if len(data) > MAX_BYTES:
        raise misread(where, None, f"larger than {MAX_BYTES >> 10} KiB; a config is a page of keys and values")
    return _Json(text, where).read() if path.suffix == ".json" else read_yaml(text, where, keeps_text)


class _Json:
    """One JSON object; its keys are taken one by one, so that each has a line."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.at = text, where, 0
        self.decoder = json.JSONDecoder(object_pairs_hook=self._pairs, parse_constant=self._constant)

    def read(self) -> Text:
        """All of it.

        Raises:
            ConfigError: it is no JSON object, or sets a key twice.
        """
        try:
            found = self._object()
        except ConfigError:
            raise
        except json.JSONDecodeError as error:
            raise misread(self.where, error.lineno, f"this is not JSON: {error.msg}") from error
        except RecursionError as error:
            raise misread(self.where, self._line(), "values are nested too deeply") from error
        except ValueError as error:  # a whole number of thousands of digits
            raise misread(self.where, self._line(), f"not a value: {error}") from error
        for key, value in found.values.items():
            if _depth(value) > MAX_DEPTH:
                raise misread(self.where, found.lines[key], f"{key}: values are nested too deeply")
        return found

    def _object(self) -> Text:
        found = Text({}, {})
        self._expect("{", "a config is an object, { and keys in double quotes")
        while not self._takes("}"):
            if found.values:
                self._expect(",", "expected , or }")
                self._white()
            line = self._line()
            key, self.at = self.decoder.raw_decode(self.text, self.at)
            if not isinstance(key, str):
                raise misread(self.where, line, f"expected a key in double quotes, got {shortened(key)}")
            if key in found.values:
                raise misread(self.where, line, f"{shortened(key)} is set twice, first in line {found.lines[key]}")
            self._expect(":", "expected : after a key")
            self._white()
            value, self.at = self.decoder.raw_decode(self.text, self.at)
            found.values[key], found.lines[key] = value, line
        self._white()
        if self.at != len(self.text):
            raise misread(self.where, self._line(), "text after the closing }")
        return found

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        key, times = Counter(key for key, _ in pairs).most_common(1)[0] if pairs else ("", 0)
        if times > 1:
            raise misread(self.where, self._line(), f"{shortened(key)} is set twice in one object")
        return dict(pairs)

    def _constant(self, name: str) -> Any:
        raise misread(self.where, self._line(), f"{name} is no JSON, and no key takes it")

    def _white(self) -> None:
        match = _WHITE.match(self.text, self.at)
        self.at = self.at if match is None else match.end()

    def _takes(self, mark: str) -> bool:
        self._white()
        is_there = self.text.startswith(mark, self.at)
        self.at += is_there
        return is_there

    def _expect(self, mark: str, what: str) -> None:
        if not self._takes(mark):
            raise misread(self.where, self._line(), f"this is not JSON: {what}")

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1


def _depth(value: Any) -> int:
    """Levels of lists and objects."""
    level, depth = [value], 0
    while level:
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in inner for item in items]
        depth += bool(inner)
    return depth
