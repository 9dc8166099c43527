"""docs/config.md is what the list of keys says."""

from __future__ import annotations

import subprocess
import sys

from utils.config import CONFIGS
from utils.config_docs import render_docs
from utils.config_keys import config_keys

ROOT = CONFIGS.parent


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == render_docs(), "run: python -m utils.config > docs/config.md"


def test_every_key_has_a_line_with_help() -> None:
    lines = render_docs().splitlines()
    for name, declared in config_keys().items():
        (line,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        assert line.endswith(f"{declared.metadata['help']} |")
        assert declared.metadata["help"]


def test_the_module_prints_the_page() -> None:
    done = subprocess.run([sys.executable, "-m", "utils.config"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == render_docs()
