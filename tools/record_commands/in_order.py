"""A function over a stream by several threads, results in order, with a progress bar. What it computes is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_WINDOW = 256  # items in flight


def in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """function(item) for each item, in order, computed ahead by threads (reading and decoding release the GIL)."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _WINDOW:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def counted(items: Iterable[_Item], total: int, command: str, *, done: int = 0) -> Iterator[_Item]:
    """The same items, with a progress bar on stderr where that is a terminal."""
    with tqdm(total=total, initial=done, unit=" images", desc=command, disable=None) as progress:
        for item in items:
            yield item
            progress.update()
