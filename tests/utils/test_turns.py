"""Contestants in turns: who is asked when, and what is made of their values."""

from __future__ import annotations

from utils.turns import alternate, summarize


def test_every_other_round_goes_the_other_way_and_ratios_are_of_one_round() -> None:
    asked: list[str] = []
    answers = {"slow": iter([4.0, 40.0, 6.0]), "fast": iter([1.0, 10.0, 3.0])}

    def ask(name: str) -> float:
        asked.append(name)
        return next(answers[name])

    values = alternate({name: lambda name=name: ask(name) for name in answers}, 3)
    assert asked == ["slow", "fast", "fast", "slow", "slow", "fast"]
    assert values == {"slow": [4.0, 40.0, 6.0], "fast": [1.0, 10.0, 3.0]}
    found = summarize(values, "slow")
    assert (found["fast"].median, found["fast"].smallest, found["fast"].largest) == (3.0, 1.0, 10.0)
    assert found["fast"].ratio == 0.25  # of the rounds: 1/4, 1/4, 1/2; of the medians it would be 1/2
    assert found["slow"].ratio == 1.0
