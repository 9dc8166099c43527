"""YAML as plain values with their lines; nothing in a file can build an object, run code or grow beyond bounds.

Read as YAML 1.2 does: `off`, `no` and `12:30` are text, `1e-4` is a number. The parser is PyYAML's, which follows 1.1
where it decides what a scalar is; that part is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from utils.config_values import ConfigError, Text, misread, shortened

MAX_VALUES = 10_000  # aliases count each time: ten lines of YAML can otherwise stand for billions of values
MAX_DEPTH = 16

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = "plain"  # the tag of a scalar without quotes and without a tag
# The core schema of YAML 1.2 (section 10.3.2) without infinities, which no key takes; and None, as the help writes it.
_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "null": (r"~|null|Null|NULL|None|", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", lambda text: int(text, 0 if text[:2] in ("0o", "0x") else 10)),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", float),
    "str": (r"(?s:.*)", str),
}


class _Loader(yaml.SafeLoader):
    """Composes nodes for `read_yaml` to read; it constructs nothing."""

    def fetch_flow_collection_start(self, token: type) -> None:
        """Refuses depth while scanning: the scanner's time grows with its square."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.scanner.ScannerError(None, None, "values are nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token)

    def resolve(self, kind: type, value: str, implicit: Any) -> str:
        """Marks plain scalars instead of resolving them."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _PREFIX + "str"
        return str(super().resolve(kind, value, implicit))


def read_yaml(text: str, where: str, keeps_text: Callable[[str], bool]) -> Text:
    """One YAML document that is a mapping from names to plain values.

    Args:
        text: the document.
        where: what errors call it.
        keeps_text: whether a key of the outermost mapping wants text, so that `output: 2024` stays "2024".

    Raises:
        ConfigError: anything else, with its line.
    """
    try:
        root = _Loader(text).get_single_node()
        if root is None:
            return Text({}, {})
        if not isinstance(root, yaml.MappingNode):
            raise misread(where, _line_of(root), "a config is a mapping, lines of KEY: VALUE")
        values = _Reader(where, keeps_text).mapping(root, 0)
    except yaml.YAMLError as error:
        raise _explained(error, where) from error
    except RecursionError as error:
        raise misread(where, None, "values are nested too deeply") from error
    return Text(values, {key.value: _line_of(key) for key, _ in root.value})


def _explained(error: Exception, where: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    said = "this is not YAML: " + (": ".join(str(part) for part in parts if part) or "it cannot be parsed")
    if "'\\t'" in said:
        said += " (indent with spaces)"
    return misread(where, None if mark is None else mark.line + 1, said)


class _Reader:
    """Nodes to values, counted."""

    def __init__(self, where: str, keeps_text: Callable[[str], bool]) -> None:
        self.where, self.keeps_text, self.num_values = where, keeps_text, 0

    def mapping(self, node: Any, depth: int) -> dict[str, Any]:
        """The pairs of a mapping, each key once."""
        self._check_tag(node, "map")
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, _line_of(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise misread(self.where, line, "a key is a name, not a list or a mapping")
            self._check_tag(key_node, "str")
            if key == "<<":
                raise misread(self.where, line, "<< is not read here: build on another file with base: FILE")
            if key in values:
                raise misread(self.where, line, f"{shortened(key)} is set twice, first in line {lines[key]}")
            value = self._value(value_node, depth)
            is_plain = isinstance(value_node, yaml.ScalarNode) and value_node.tag == _PLAIN
            if depth == 0 and is_plain and value is not None and self.keeps_text(key):
                value = value_node.value
            values[key], lines[key] = value, line
        return values

    def _value(self, node: Any, depth: int) -> Any:
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise misread(self.where, _line_of(node), f"more than {MAX_VALUES} values, aliases counted each time")
        if depth > MAX_DEPTH:
            raise misread(self.where, _line_of(node), "values are nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [self._value(item, depth + 1) for item in node.value]
        return self.mapping(node, depth + 1)

    def _scalar(self, node: Any) -> Any:
        text, kind = node.value, node.tag.removeprefix(_PREFIX)
        if kind == _PLAIN:
            kind = next(name for name, (pattern, _) in _SCALARS.items() if re.fullmatch(pattern, text))
        elif kind not in _SCALARS:
            self._check_tag(node, "str")
        elif re.fullmatch(_SCALARS[kind][0], text) is None:
            raise misread(self.where, _line_of(node), f"{shortened(text)} is no !!{kind}")
        try:
            return _SCALARS[kind][1](text)
        except ValueError as error:  # a whole number of thousands of digits
            raise misread(self.where, _line_of(node), f"{shortened(text)} is no number to read: {error}") from error

    def _check_tag(self, node: Any, kind: str) -> None:
        if node.tag not in (_PREFIX + kind, _PLAIN):
            tag = shortened(node.tag.replace(_PREFIX, "!!"))
            raise misread(self.where, _line_of(node), f"the tag {tag} is refused: a config holds plain values")


def _line_of(node: Any) -> int:
    return int(node.start_mark.line) + 1
