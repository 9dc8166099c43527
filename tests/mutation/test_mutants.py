"""The mutants still fit the code: each text occurs exactly once, every head has one, none is its own original."""

from __future__ import annotations

import pytest

from losses import HEADS
from tests.mutation import engine, heads
from tests.mutation.__main__ import ROOT
from tests.mutation.mutant import Mutant

ALL = [*engine.MUTANTS, *heads.MUTANTS]


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.path} has {text.count(mutant.old)} places with {mutant.old!r}"
    assert mutant.new != mutant.old


def test_every_head_has_a_mutant() -> None:
    broken = {mutant.name.split(":")[0] for mutant in heads.MUTANTS}
    classes = {HEADS[name] for name in broken}
    assert not [name for name, head in HEADS.items() if head not in classes]


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL)
