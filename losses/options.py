"""How the engine walks the classes: sizes, memory, precision, filter. Nothing that a formula depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineOptions:
    """How the classes are walked.

    Attributes:
        chunk_size: classes per chunk; None sizes chunks by the cache.
        memory_budget: bytes of chunk results kept for the backward pass; what does not fit is recomputed.
        is_reduced: round the operands of the products to bfloat16 (results stay float32).
        interclass_filter: non-targets whose similarity exceeds it leave log_sum; None keeps all.
        wants_hardest_cosine: a regulariser needs hardest_cosine.
    """

    chunk_size: int | None = None
    memory_budget: int = 256 << 20
    is_reduced: bool = False
    interclass_filter: float | None = None
    wants_hardest_cosine: bool = False
