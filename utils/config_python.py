"""Config files in Python, as arcface_torch has them: code, which is run. Files that are only read: config_text.py."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.config_values import ConfigError


def run_config(path: Path, where: str, ours: Path) -> dict[str, Any]:
    """Executes a config file and returns its `config` as a plain dict of its own.

    `from configs.NAME import config` finds the files beside it, then this project's. Nothing it imports that way
    outlives the call, so one file's changes to a shared `config` never reach another load.

    Args:
        path: the file.
        where: what errors call it.
        ours: this project's configs/.

    Raises:
        ConfigError: it does not run, or sets no `config`.
    """
    namespace: dict[str, Any] = {"__name__": f"configs.{path.stem}", "__file__": str(path)}
    try:
        with _private_configs(path.parent, ours):
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
def _private_configs(folder: Path, ours: Path) -> Iterator[None]:
    """Gives one load a `configs` package of its own, made of the file's folder and this project's."""
    package = types.ModuleType("configs")
    package.__path__ = [str(folder), str(ours)]
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
