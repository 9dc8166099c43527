"""docs/config.md, written from the list of keys; no key is described here."""

from __future__ import annotations

from typing import Any

from utils.config_arcface import ANSWERS, TRANSLATIONS
from utils.config_keys import config_keys, default_of, key_types
from utils.config_values import describe_type

INTRODUCTION = """\
# Configuration keys

<!-- written by: python -m utils.config > docs/config.md -->

A config is a file of keys and values, in one of three forms. `key=value` arguments of `train.py` come last: Python
literals, `lr=0.05 val_targets=lfw,agedb_30 head_options.margin=0.4`. Paths are relative to the working directory.
Everything is checked before training starts, and all problems are reported at once.

- **Python**, as in arcface_torch: sets `config = edict()` and then `config.KEY = VALUE`; may begin with
  `from configs.OTHER import config` and state what differs. A `base.py` beside it is read first. **Such a file is a
  program and is run with your rights: take one from strangers only after reading it, `base.py` and imports included.**
- **YAML** (`.yaml`, `.yml`): lines of `KEY: VALUE`. Data, never run. `base: FILE` names another YAML or JSON file, or a
  config of this project (`base: ms1m_base`), to build on; without it a `base.yaml`, `base.yml` or `base.json` beside
  the file is read first. Values are YAML 1.2's: `true`, `false`, `null` (or `None`), `1e-4` a number, `off` and `no`
  text. A key set twice, tags such as `!!python/name`, and `<<` are errors.
- **JSON**: the same as one object. A run's own `config.json` is a config too, and repeats that run:
  `python train.py work_dirs/NAME/config.json output=ELSEWHERE`.

`python -m utils.config --to yaml CONFIG [key=value ...]` prints any config as YAML (`--to json`: as JSON).
"""

ARCFACE = """
## Keys of arcface_torch

Config files written for arcface_torch run as they are, but for their paths. Keys not named here mean the same. Where a
file has a `margin_list` and no `lr_power`, it is 1: arcface_torch's decay is linear.

| key | here |
|---|---|
"""

TABLE = """\
| key | default | value | unit | meaning |
|---|---|---|---|---|
"""


def render_docs() -> str:
    """Returns the text of docs/config.md: a table for each group of keys, then arcface_torch's keys."""
    lines = [INTRODUCTION]
    for name, declared in config_keys().items():
        about = declared.metadata
        if about["group"]:
            lines.append(f"\n## {about['group']}\n\n{TABLE}")
        allowed = describe_type(key_types()[name]) + (f", {about['allowed']}" if about["allowed"] else "")
        lines.append(f"| `{name}` | `{_shown(default_of(name))}` | {allowed} | {about['unit']} | {about['help']} |\n")
    lines.append(ARCFACE)
    lines += [f"| `{name}` | is read as `{target}` |\n" for name, (target, _) in TRANSLATIONS.items()]
    lines += [f"| `{name}` | {answer} |\n" for name, answer in ANSWERS.items()]
    return "".join(lines)


def _shown(value: Any) -> str:
    return '""' if value == "" else f"{value!r}".replace("'", '"')
