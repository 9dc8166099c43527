"""The loss scale's state machine."""

from __future__ import annotations

from training.precision import GROWTH_INTERVAL, INITIAL_SCALE, LossScaler


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
