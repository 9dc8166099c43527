"""Which config files make up one config, in any of their formats; what their keys may be is utils/config_keys.py's."""

from __future__ import annotations

import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.config_keys import key_types
from utils.config_python import run_config
from utils.config_text import SUFFIXES, read_text_config
from utils.config_values import ConfigError, Text, did_you_mean, misread

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
BASE = "base"  # the key of a text config that names the file it builds on, and the stem of what is read first
_MAX_CHAIN = 16
_OF_A_RUN = {"name", "source", "notes"}  # what config.json of a run folder holds besides keys


@dataclass(frozen=True)
class Layer:
    """One file's part of a config.

    Attributes:
        where: what notes and problems call the file.
        values: key -> value as written.
        lines: key -> line, where the format tells.
        name: of the run whose config.json this is, else None.
    """

    where: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    name: str | None = None


def find_config(path_or_name: str | Path) -> Path:
    """Returns the absolute path of a config given by path or name, with or without its suffix.

    Raises:
        ConfigError: there is none (the message says where it was looked for and what is there), or a name without a
            suffix stands for several files.
    """
    given = Path(path_or_name).expanduser()
    suffixes = (".py", *SUFFIXES)
    spellings = [given] if given.suffix in suffixes else [Path(f"{given}{suffix}") for suffix in suffixes]
    dotted = str(path_or_name).removesuffix(".py")
    if "/" not in dotted and "." in dotted and given.suffix not in SUFFIXES:
        inside = Path(*[part for part in dotted.split(".") if part])
        spellings += [Path(f"{inside}{suffix}") for suffix in suffixes]
    folders = [Path.cwd(), Path.cwd() / "configs", CONFIGS.parent, CONFIGS]
    for folder in folders:
        found = [folder / spelling for spelling in spellings if _is_file(folder / spelling)]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise ConfigError([f"{path_or_name}: {folder} holds {names}. Say which, with its suffix."])
        if found:
            return found[0].resolve()
    known = sorted(
        {path.stem for path in CONFIGS.iterdir() if path.suffix in suffixes and path.stem not in ("__init__", BASE)}
    )
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    near = did_you_mean(given.stem, known)
    raise ConfigError([f"{path_or_name}: there is no such config in {looked}.{near} Have: {', '.join(known)}."])


def read_layers(path: Path) -> list[Layer]:
    """Reads a config file and what it builds on, lowest layer first.

    A Python file is run, and builds on the `base.py` beside it. A YAML or JSON file is only read, and builds on what
    its key `base` names, or on a `base.yaml`, `base.yml` or `base.json` beside it: on data, or on this project's own
    configs, never on a Python file from elsewhere. Where neither is there, this project's configs/base.py comes first.
    A run's config.json is complete: nothing comes before it.

    Raises:
        ConfigError: a file that cannot be read, or files that build on each other in a circle.
    """
    layers: list[Layer] = []
    chain: list[Path] = []
    following: Path | None = path
    while following is not None:
        if following in chain or len(chain) == _MAX_CHAIN:
            names = " -> ".join(shown(file) for file in [*chain, following][:4])
            raise ConfigError([f"{shown(path)}: a circle, or more than {_MAX_CHAIN} files on each other: {names}."])
        chain.append(following)
        layer, following = _read_text(following) if following.suffix in SUFFIXES else _read_python(following)
        layers.insert(0, layer)
    return layers


def shown(path: Path) -> str:
    """A path as a user would type it: from the working directory or this project where it lies below, else in full."""
    for root in (Path.cwd().resolve(), CONFIGS.parent):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def _read_python(path: Path) -> tuple[Layer, Path | None]:
    layer = Layer(shown(path), run_config(path, shown(path), CONFIGS))
    beside = path.parent / f"{BASE}.py"
    if path == beside:
        return layer, None
    return layer, beside if beside.is_file() else _ours(BASE)


def _read_text(path: Path) -> tuple[Layer, Path | None]:
    where = shown(path)
    text = read_text_config(path, where, _wants_text)
    values = text.values
    if path.suffix == ".json" and values.keys() >= _OF_A_RUN:
        name = values["name"] if isinstance(values["name"], str) and values["name"] else None
        # The run began anew once, however often it was resumed since.
        kept = {key: value for key, value in values.items() if key not in _OF_A_RUN and key != "resume"}
        return Layer(where, kept, text.lines, name), None
    if BASE in values:
        return Layer(where, values, text.lines), _named(path, values.pop(BASE), text, where)
    beside = [path.with_name(BASE + suffix) for suffix in SUFFIXES]
    found = [file for file in beside if file.is_file()] if path not in beside else []
    return Layer(where, values, text.lines), found[0] if found else _ours(BASE)


def _named(path: Path, base: Any, text: Text, where: str) -> Path:
    """The file that the key `base` of a text config names."""
    line = text.lines[BASE]
    if not isinstance(base, str) or not base:
        raise misread(
            where, line, f"{BASE} = {base!r}, but it must be the path of a YAML or JSON file, or our config's name"
        )
    beside = Path(os.path.normpath(path.parent / base))
    if (beside.suffix in SUFFIXES or beside.parent == CONFIGS) and _is_file(beside):
        return beside
    own = _ours(base.removeprefix("configs/").removeprefix("configs.").removesuffix(".py"))
    if own is not None:
        return own
    if beside.suffix == ".py" and _is_file(beside):
        raise misread(
            where, line, f"{BASE} = {base!r} is Python, which is run, and this file promises to be data: "
            "build on YAML, on JSON or on a config of this project"
        )  # fmt: skip
    raise misread(where, line, f"{BASE} = {base!r}: there is no {beside}, and no config of this project has that name")


def _ours(name: str) -> Path | None:
    """A config of this project by its name alone."""
    if "/" in name or "\\" in name:
        return None
    found = (CONFIGS / f"{name}{suffix}" for suffix in (".py", *SUFFIXES))
    return next((path for path in found if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """As `is_file`; what cannot be a name, too long or with a zero byte, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _wants_text(key: str) -> bool:
    """Whether text is the only thing but None that a key takes: YAML's unquoted 2024 is then a name, not a number."""
    hint = key_types().get(key)
    members = typing.get_args(hint) or (hint,)
    return hint is not None and all(member in (str, type(None)) for member in members)
