"""Which precision a device gets, and the loss scale's state machine."""

from __future__ import annotations

import pytest
import torch

from training.precision import GROWTH_INTERVAL, INITIAL_SCALE, LossScaler, resolve_precision


def test_scale_halves_after_an_overflow_and_doubles_after_enough_good_steps() -> None:
    scaler = LossScaler(is_active=True)
    scaler.update(has_overflow=True)
    assert scaler.scale == INITIAL_SCALE / 2
    for _ in range(GROWTH_INTERVAL - 1):
        scaler.update(has_overflow=False)
    assert scaler.scale == INITIAL_SCALE / 2
    scaler.update(has_overflow=False)
    assert scaler.scale == INITIAL_SCALE


def test_state_continues_the_count() -> None:
    scaler, other = LossScaler(is_active=True), LossScaler(is_active=True)
    scaler.update(has_overflow=True)
    for _ in range(GROWTH_INTERVAL - 1):
        scaler.update(has_overflow=False)
    other.load_state_dict(scaler.state_dict())
    other.update(has_overflow=False)
    assert other.scale == INITIAL_SCALE


def test_inactive_scaler_never_moves_and_lends_no_scale() -> None:
    scaler, active = LossScaler(is_active=False), LossScaler(is_active=True)
    scaler.update(has_overflow=True)
    assert (scaler.scale, scaler.is_exhausted) == (1.0, False)
    active.load_state_dict(scaler.state_dict())
    assert active.scale == INITIAL_SCALE
    scaler.load_state_dict(active.state_dict())
    assert scaler.scale == 1.0


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_is_bf16_only_where_a_cpu_has_it(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(("is_native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_gpus_that_only_emulate_bf16(is_native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or is_native
    )
    assert resolve_precision("auto", torch.device("cuda", 0)) == expected
