"""From a config file and command-line overrides to one checked Config; the keys themselves are utils/config_keys.py's.

``python -m utils.config`` prints docs/config.md.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config_arcface import is_arcface_torch, linear_decay_note, translate
from utils.config_checks import check_together, missing_data_message
from utils.config_keys import Config, check_values, default_of, hint_for, key_types
from utils.config_values import ConfigError, did_you_mean, parse_literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Config", "ConfigError", "find_config", "load_config", "missing_data_message"]

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
COMMAND_LINE = "command line"


@dataclass
class _Merged:
    """Keys as written so far, lowest layer first: base.py, the file, the command line."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, values: Mapping[str, Any], where: str) -> None:
        """Lays one layer over the others; another head takes its predecessor's options away."""
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
        self.origins.update(dict.fromkeys(native, where))


def load_config(
    path_or_name: str | Path,
    overrides: Sequence[str] = (),
    *,
    heads: Mapping[str, type] | None = None,
    backbones: Mapping[str, Any] | None = None,
    regularizers: Mapping[str, Any] | None = None,
) -> Config:
    """Reads a config file, lays the overrides over it and checks everything.

    A `base.py` beside the file is read first, as arcface_torch does; without one, this project's configs/base.py.

    Args:
        path_or_name: `configs/NAME.py`, `configs/NAME`, `configs.NAME` or `NAME`; looked for from the working
            directory, then in this project.
        overrides: `key=value` with Python literals; `head_options.margin=0.5` reaches into a dict.
        heads: name -> head class; given, the head's name and options are checked against the class.
        backbones: the names that `network` may have; None: not checked.
        regularizers: the names that `regularizers` may have; None: not checked.

    Raises:
        ConfigError: all problems at once, one line each.
    """
    path = find_config(path_or_name)
    merged = _Merged()
    base = path.parent / "base.py" if (path.parent / "base.py").is_file() else CONFIGS / "base.py"
    files = [path] if path == base or not base.is_file() else [base, path]
    written = {_shown(file): _run_file(file) for file in files}
    for where, values in written.items():
        merged.add(values, where)
    _add_overrides(merged, overrides)
    for where in [where for where, values in written.items() if is_arcface_torch(values)][-1:]:
        if "lr_power" not in merged.values:
            merged.add({"lr_power": 1.0}, where)
            merged.notes["lr_power"] = linear_decay_note(where)
    clean, problems = check_values(merged.values, merged.origins)
    merged.problems += problems
    origins = {name: merged.origins.get(name, _shown(path)) for name in key_types()}
    failed = frozenset(merged.values.keys() - clean.keys())
    merged.problems += check_together(
        clean, origins, failed, heads=heads, backbones=backbones, regularizers=regularizers
    )
    if merged.problems:
        raise ConfigError(dict.fromkeys(merged.problems))
    if clean.get("output") is None:
        clean["output"] = str(Path("work_dirs") / path.stem)
    return Config(**clean, name=path.stem, source=_shown(path), notes=tuple(merged.notes.values()))


def find_config(path_or_name: str | Path) -> Path:
    """Returns the absolute path of a config given by path or name.

    Raises:
        ConfigError: there is none; the message says where it was looked for and what is there.
    """
    given = Path(path_or_name).expanduser()
    dotted = str(path_or_name).removesuffix(".py")
    spellings = [given] if given.suffix == ".py" else [given.with_name(given.name + ".py")]
    if "/" not in dotted and "." in dotted:
        spellings.append(Path(*dotted.split(".")).with_suffix(".py"))
    folders = [Path.cwd(), Path.cwd() / "configs", CONFIGS.parent, CONFIGS]
    for folder in folders:
        for spelling in spellings:
            if (folder / spelling).is_file():
                return (folder / spelling).resolve()
    known = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "base"))
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    near = did_you_mean(given.stem, known)
    raise ConfigError([f"{path_or_name}: there is no such config in {looked}.{near} Have: {', '.join(known)}."])


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
        if group not in ("head_options", "regularizers"):
            unknown = f"unknown key {group!r}.{hint_for(group)}"
            what = f"{group} has no parts, write {group}=VALUE." if group in key_types() else unknown
            merged.problems.append(f"{COMMAND_LINE}: {group}.{option}: {what}")
            continue
        before = merged.values.get(group, {})
        if isinstance(before, Mapping):
            merged.values[group] = {**before, option: value}
            merged.origins[group] = COMMAND_LINE


def _run_file(path: Path) -> dict[str, Any]:
    """Executes a config file and returns its `config` as a plain dict of its own.

    `from configs.NAME import config` finds the files beside it, then this project's. Nothing it imports that way
    outlives the call, so one file's changes to a shared `config` never reach another load.
    """
    where = _shown(path)
    namespace: dict[str, Any] = {"__name__": f"configs.{path.stem}", "__file__": str(path)}
    try:
        with _private_configs(path.parent):
            exec(compile(path.read_bytes(), str(path), "exec"), namespace)
    except SyntaxError as error:
        raise ConfigError([f"{where}:{error.lineno}: this is not Python: {error.msg}."]) from error
    except Exception as error:
        line = _line_of(error, path)
        raise ConfigError([f"{where}{line}: running the file raised {type(error).__name__}: {error}."]) from error
    config = namespace.get("config")
    if not isinstance(config, Mapping):
        got = "does not set it" if config is None else f"sets it to a {type(config).__name__}"
        raise ConfigError(
            [f"{where}: a config file sets `config = edict()` and then `config.KEY = VALUE`, but this one {got}."]
        )
    return dict(config)


@contextmanager
def _private_configs(folder: Path) -> Iterator[None]:
    """Gives one load a `configs` package of its own, made of the file's folder and this project's."""
    package = types.ModuleType("configs")
    package.__path__ = [str(folder), str(CONFIGS)]
    kept = _take_configs()
    sys.modules["configs"] = package
    try:
        yield
    finally:
        _take_configs()
        sys.modules.update(kept)


def _take_configs() -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if name == "configs" or name.startswith("configs.")]
    return {name: sys.modules.pop(name) for name in names}


def _line_of(error: BaseException, path: Path) -> str:
    traceback, line = error.__traceback__, ""
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = f":{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def _shown(path: Path) -> str:
    """A path as a user would type it: from the working directory or this project where it lies below, else in full."""
    for root in (Path.cwd().resolve(), CONFIGS.parent):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


if __name__ == "__main__":
    from utils.config_docs import render_docs

    print(render_docs(), end="")
