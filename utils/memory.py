"""How this process gets its memory from the system. Nothing here allocates any."""

from __future__ import annotations

import os


def prefer_huge_pages() -> None:
    """Lets torch ask Linux for pages of 2 MiB for its large CPU tensors; call it before the first tensor is made.

    Every training step allocates and frees activations and gradients anew, and with pages of 4 KiB the system spends
    more time on handing them out than torch on filling them: a tensor of 200 MiB took 0.13 s to fill, not 0.02 s,
    and a training step of the small net 1.3 times as long. torch reads the variable once; it does nothing elsewhere or
    where the system forbids it, and a value that is already set is left alone.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
