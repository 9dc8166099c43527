"""Which precision a device trains in, and the loss scale of fp16 as a small state machine. No tensors, no ranks."""

from __future__ import annotations

from typing import Any

import torch

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
SMALLEST_SCALE = 2.0**-14  # below fp16's smallest normal number scaling can no longer be what is wrong


def resolve_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on a device; anything else stays as it is.

    bf16 where the hardware multiplies it; where it would be emulated, many times slower than fp32 on CPUs, fp16 on GPUs
    and fp32 on CPUs.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has_units = any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if has_units else "fp32"


class LossScaler:
    """Multiplies the loss so that small fp16 gradients do not vanish; halves after an overflow, doubles after a while.

    The rules and numbers of torch.amp.GradScaler. It differs in that its caller has already agreed with all ranks
    whether there was an overflow, and in that the scale lives on the host: every step waits for its finite check.
    """

    def __init__(self, is_active: bool) -> None:
        self.is_active = is_active
        self.scale = INITIAL_SCALE if is_active else 1.0
        self._good_steps = 0

    def update(self, has_overflow: bool) -> None:
        """After a step: `has_overflow` says whether it was skipped."""
        if not self.is_active:
            return
        if has_overflow:
            self.scale /= 2.0
            self._good_steps = 0
            return
        self._good_steps += 1
        if self._good_steps == GROWTH_INTERVAL:
            self.scale *= 2.0
            self._good_steps = 0

    @property
    def is_exhausted(self) -> bool:
        """No smaller scale will help: the gradients themselves are not finite."""
        return self.is_active and self.scale < SMALLEST_SCALE

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state; nothing where this run does not scale, the start where the other did not."""
        if self.is_active and state["scale"] != 1.0:
            self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
