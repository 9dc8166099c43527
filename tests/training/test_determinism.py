"""Two runs are the same bits; `deterministic=True` switches torch, and names what it cannot have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.training.determinism_runs import differences, run_once
from training.determinism import WORKSPACE, DeterminismError, determinism


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the variable as it was."""
    monkeypatch.setenv(WORKSPACE, ":16:8")
    monkeypatch.delenv(WORKSPACE)


def switches() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_two_runs_as_users_start_them_are_equal_bit_for_bit(tmp_path: Path, ranks: int) -> None:
    # On the CPU torch sums in a fixed order anyway: the run without the switch is held to the same bits.
    one = run_once(tmp_path / "one", "deterministic=True", ranks=ranks)
    # The second is started from what the first wrote, as one repeats a run.
    other = run_once(tmp_path / "other", "deterministic=False", ranks=ranks, config=one / "config.json")
    assert differences(one, other) == []
    assert len(list((one / "checkpoints").iterdir())) >= 2
    # The comparison itself can fail: a bit of one weight, a line of the metrics.
    state = torch.load(other / "model.pt", weights_only=True)
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    state[name].view(-1)[0] = torch.nextafter(state[name].view(-1)[0], torch.tensor(9.0))
    torch.save(state, other / "model.pt")
    metrics = (other / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(metrics.replace('"loss": ', '"loss": 1', 1))
    assert differences(one, other) == ["metrics.jsonl", f"model.pt: {name}"]


def test_the_switches_last_as_long_as_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = switches()
    with determinism(False):
        assert switches() == before
        assert WORKSPACE not in os.environ
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with determinism(True):
        assert switches() == (True, True, False)
        assert os.environ[WORKSPACE] == ":4096:8"
    assert switches() == (before[0], before[1], True)
    with determinism(True):
        pass
    assert os.environ[WORKSPACE] == ":4096:8"


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    def scatter_by_place() -> None:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    with determinism(False):
        scatter_by_place()
    with (
        pytest.raises(DeterminismError, match=r"^deterministic=True: put_ has no deterministic implementation on this"),
        determinism(True),
    ):
        scatter_by_place()
    assert switches()[0] is False
    with pytest.raises(RuntimeError, match="size of tensor") as caught, determinism(True):
        torch.zeros(2) + torch.zeros(3)
    assert not isinstance(caught.value, DeterminismError), "other errors stay what they are"


def test_a_setting_that_is_too_late_or_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(DeterminismError, match="a GPU is already in use, too late to set"), determinism(True):
        pass
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(DeterminismError, match=f"the environment sets {WORKSPACE}=:0:0"), determinism(True):
        pass
    assert switches()[0] is False
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with determinism(True):
        assert switches()[0] is True
