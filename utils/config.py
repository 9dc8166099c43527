"""From a config file and command-line overrides to one checked Config; the keys themselves are utils/config_keys.py's.

``python -m utils.config`` prints docs/config.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.config_arcface import is_arcface_torch, linear_decay_note, translate
from utils.config_checks import check_together, missing_data_message
from utils.config_files import CONFIGS, find_config, read_layers, shown
from utils.config_keys import Config, check_values, config_keys, default_of, hint_for, key_types
from utils.config_values import ConfigError, parse_literal

__all__ = ["CONFIGS", "Config", "ConfigError", "convert", "find_config", "load_config", "missing_data_message"]

COMMAND_LINE = "command line"


DICTS = ("head_options", "network_options", "regularizers")  # keys whose entries have names of their own


@dataclass
class _Merged:
    """Keys as written so far, lowest layer first: base.py, the file, the command line."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, values: Mapping[str, Any], where: str, lines: Mapping[str, int] | None = None) -> None:
        """Lays one layer over the others; another head takes its predecessor's options away.

        Another network does not: nets of a family have the same options, and one that has not is refused in words.
        """
        native, notes, problems = translate(values, where)
        self.notes.update(notes)
        self.problems += problems
        head_before = self.values.get("head", default_of("head"))
        if native.get("head", head_before) != head_before and self.values.get("head_options"):
            left = self.values.pop("head_options")
            if where == COMMAND_LINE:
                said = f"{where}: head = {native['head']!r} replaces {head_before} and its options {left!r}."
                self.notes["head"] = said
        self.values.update(native)
        at = {name: f"{where}:{line}" for name, line in (lines or {}).items()}
        self.origins.update({name: at.get(name, where) for name in native})


def load_config(
    path_or_name: str | Path,
    overrides: Sequence[str] = (),
    *,
    heads: Mapping[str, type] | None = None,
    backbones: Mapping[str, Any] | None = None,
    regularizers: Mapping[str, Any] | None = None,
) -> Config:
    """Reads a config file, lays the overrides over it and checks everything.

    A Python file is code and is run; YAML and JSON are data and are read. What they build on: `read_layers`.

    Args:
        path_or_name: `configs/NAME.py`, `configs/NAME`, `configs.NAME` or `NAME`, with .yaml, .yml or .json likewise;
            looked for from the working directory, then in this project.
        overrides: `key=value` with Python literals; `head_options.margin=0.5` reaches into a dict.
        heads: name -> head class; given, the head's name and options are checked against the class.
        backbones: name -> what builds the net; given, the network's name and options are checked against it.
        regularizers: the names that `regularizers` may have; None: not checked.

    Raises:
        ConfigError: all problems at once, one line each.
    """
    path = find_config(path_or_name)
    merged = _Merged()
    layers = read_layers(path)
    for layer in layers:
        merged.add(layer.values, layer.where, layer.lines)
    _add_overrides(merged, overrides)
    for where in [layer.where for layer in layers if is_arcface_torch(layer.values)][-1:]:
        if "lr_power" not in merged.values:
            merged.add({"lr_power": 1.0}, where)
            merged.notes["lr_power"] = linear_decay_note(where)
    clean, problems = check_values(merged.values, merged.origins)
    merged.problems += problems
    origins = {name: merged.origins.get(name, shown(path)) for name in key_types()}
    failed = frozenset(merged.values.keys() - clean.keys())
    merged.problems += check_together(
        clean, origins, failed, heads=heads, backbones=backbones, regularizers=regularizers
    )
    if merged.problems:
        raise ConfigError(dict.fromkeys(merged.problems))
    name = layers[-1].name or path.stem
    if clean.get("output") is None:
        clean["output"] = str(Path("work_dirs") / name)
    return Config(**clean, name=name, source=shown(path), notes=tuple(merged.notes.values()))


def _add_overrides(merged: _Merged, overrides: Sequence[str]) -> None:
    """Lays `key=value` arguments over the files; dotted ones last, into the dicts as they then are."""
    plain: dict[str, Any] = {}
    dotted: list[tuple[str, str, Any]] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        if not equals or not name or name.startswith("-"):
            example = override.lstrip("-") if equals else "lr=0.05"
            merged.problems.append(f"{COMMAND_LINE}: {override!r} is not of the form key=value, as in {example!r}.")
        elif "." in name:
            group, _, option = name.partition(".")
            dotted.append((group, option, parse_literal(text, None)))
        else:
            plain[name] = parse_literal(text, key_types().get(name, bool))  # fp16=true is arcface_torch's
    merged.add(plain, COMMAND_LINE)
    for group, option, value in dotted:
        if group not in DICTS:
            unknown = f"unknown key {group!r}.{hint_for(group)}"
            what = f"{group} has no parts, write {group}=VALUE." if group in key_types() else unknown
            merged.problems.append(f"{COMMAND_LINE}: {group}.{option}: {what}")
            continue
        before = merged.values.get(group, {})
        if isinstance(before, Mapping):
            merged.values[group] = {**before, option: value}
            merged.origins[group] = COMMAND_LINE


def convert(config: Config, kind: str) -> str:
    """A config as the text of a YAML or JSON file of the same name that gives an equal one.

    Keys at their defaults are left out, unless configs/base.py sets them otherwise.

    Args:
        config: from `load_config`.
        kind: "yaml" or "json".
    """
    values = config.to_dict()
    below = {name: value for layer in read_layers(CONFIGS / "base.py") for name, value in layer.values.items()}
    kept = {
        name: values[name]
        for name in config_keys()
        if name in below or values[name] != json.loads(json.dumps(default_of(name)))
    }
    if kept.get("output") == str(Path("work_dirs") / config.name):
        del kept["output"]
    if kind == "json":
        return json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    # Every JSON value is YAML too, and quotes leave no text to be taken for a number.
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in kept.items())


def main(arguments: Sequence[str]) -> int:
    """`python -m utils.config`; returns the exit status."""
    from utils.config_docs import render_docs

    parser = argparse.ArgumentParser(prog="python -m utils.config", description="Print docs/config.md, or convert.")
    parser.add_argument("--to", choices=("yaml", "json"), help="print CONFIG in this format instead")
    parser.add_argument("config", nargs="?", help="a .py config is code and is run; .yaml and .json are only read")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    if (options.to is None) != (options.config is None):
        parser.error("--to and CONFIG belong together")
    try:
        text = convert(load_config(options.config, options.overrides), options.to) if options.to else render_docs()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
