"""Huge pages are asked for, freed memory is kept, and a user's own setting is respected."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from utils.memory import keep_freed_memory, prefer_huge_pages

VARIABLE = "THP_MEM_ALLOC_ENABLE"


def test_a_setting_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    prefer_huge_pages()
    assert os.environ[VARIABLE] == "0"
    monkeypatch.delenv(VARIABLE)
    prefer_huge_pages()
    assert os.environ[VARIABLE] == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="huge pages are Linux's")
def test_torch_asks_for_them() -> None:
    # tensors that are to lie in huge pages begin at a page, others 64 bytes into one; torch reads the variable once
    code = (
        "import torch; from utils.memory import keep_freed_memory, prefer_huge_pages; prefer_huge_pages(); "
        "print([torch.empty(size).data_ptr() % 4096 for size in (2**20, 3 * 2**20 + 5)])"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_freed_memory_stays_with_the_process() -> None:
    code = (
        "import torch; from utils.memory import keep_freed_memory; told = keep_freed_memory(); "
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096; before = resident(); "
        "tensor = torch.ones(64, 2**20); del tensor; print(told, resident() - before > 128 * 2**20)"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["True", "True"], ["False", "False"])  # the latter with another C library


def test_a_users_own_malloc_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    assert keep_freed_memory() is False


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
