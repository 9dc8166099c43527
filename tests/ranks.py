"""A pool of processes that runs test functions as gloo ranks. No fixtures (conftest.py) and no tests live here.

Starting a process and importing torch costs seconds, a process group costs milliseconds: so the processes live as
long as the test run, and every call gets a default group of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parent.parent
MAX_WORLD_SIZE = 3
CALL_TIMEOUT = 60.0  # seconds a call may take
START_TIMEOUT = 120.0  # seconds the processes may take to import torch
RELEASE = b"release"
GRACE = 10.0  # seconds the other ranks get to notice that one has failed


class RankError(RuntimeError):
    """A rank failed with an exception that cannot be pickled, or died."""


class RankTraceback(Exception):  # noqa: N818  (a carrier of text, shown as the cause of the rank's own error)
    """The traceback of a rank, shown as the cause of the exception that `RankPool.run` raises."""

    def __str__(self) -> str:
        return str(self.args[0])


class RankPool:
    """Runs top-level functions as gloo ranks in persistent processes, started at the first call."""

    def __init__(self) -> None:
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._calls = 0

    def run(
        self,
        world_size: int,
        function: Callable[..., Any],
        *args: Any,
        timeout: float = CALL_TIMEOUT,
        group: bool = True,
    ) -> list[Any]:
        """Call `function(*args)` on ranks 0 .. world_size - 1 of a fresh default gloo group.

        Args:
            world_size: number of ranks, 1 .. 3.
            function: importable by name (top level of a module); its result must be picklable.
            args: picklable; every rank gets a copy.
            timeout: seconds; a rank that takes longer is named in a TimeoutError, and the processes are replaced.
            group: False calls without any process group.

        Returns:
            The results, by rank.

        Raises:
            Exception: what the rank that failed first raised, with its traceback as the cause.
        """
        if not 1 <= world_size <= MAX_WORLD_SIZE:
            raise ValueError(f"ranks.run: world_size is {world_size}; allowed are 1 .. {MAX_WORLD_SIZE}")
        self._start()
        assert self._folder is not None
        self._calls += 1
        store = str(Path(self._folder.name) / f"store{self._calls}") if group else None
        # plain pickle, not the connection's own: torch would send tensors as shared-memory handles
        call = pickle.dumps((function, args))
        for rank in range(world_size):
            self._connections[rank].send_bytes(pickle.dumps((rank, world_size, store, timeout, list(sys.path), call)))
        results = self._collect(world_size, timeout)
        for rank in range(world_size):  # only now, so that nobody closes connections that a peer still reads from
            self._connections[rank].send_bytes(RELEASE)
        return results

    def close(self) -> None:
        """End the processes of this pool."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._connections = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        if self._processes:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        context = multiprocessing.get_context("spawn")
        for slot in range(MAX_WORLD_SIZE):
            ours, theirs = context.Pipe()
            arguments = (theirs, str(REPO_ROOT), self._stack_path(slot))
            process = context.Process(target=_serve, args=arguments, daemon=True, name=f"rank-{slot}")
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        for slot, connection in enumerate(self._connections):
            if not connection.poll(START_TIMEOUT) or connection.recv_bytes() != b"ready":
                self.close()
                raise RankError(f"the process of rank {slot} did not start within {START_TIMEOUT:.0f} s")

    def _collect(self, world_size: int, timeout: float) -> list[Any]:
        results: dict[int, Any] = {}
        failures: list[tuple[float, int, bytes | None, str]] = []
        waiting = {self._connections[rank]: rank for rank in range(world_size)}
        deadline = time.monotonic() + timeout
        while waiting:
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for connection in ready:
                rank = waiting.pop(connection)  # type: ignore[arg-type]
                try:
                    answer = pickle.loads(connection.recv_bytes())  # type: ignore[union-attr]
                except EOFError:
                    self._processes[rank].join(1)
                    exit_code = self._processes[rank].exitcode
                    answer = ("failed", time.monotonic(), None, f"the process died (exit code {exit_code})")
                if answer[0] == "ok":
                    results[rank] = answer[1]
                else:
                    failures.append((answer[1], rank, answer[2], answer[3]))
                    deadline = min(deadline, time.monotonic() + GRACE)
        if waiting or any(error is None and "the process died" in text for _, _, error, text in failures):
            stacks = self._hanging_stacks(sorted(waiting.values()))
            self.close()
            results.clear()
            if not failures:
                names = ", ".join(str(rank) for rank in sorted(waiting.values()))
                raise TimeoutError(f"rank {names} of {world_size} did not return within {timeout:.0f} s\n{stacks}")
        if failures:
            for rank in results:
                self._connections[rank].send_bytes(RELEASE)
            _raise_first(failures, world_size)
        return [results[rank] for rank in range(world_size)]

    def _hanging_stacks(self, hanging: Sequence[int]) -> str:
        """Where the hanging ranks are, by their own fault handlers."""
        for rank in hanging:
            os.kill(self._processes[rank].pid, signal.SIGUSR1)
        time.sleep(0.5 if hanging else 0.0)
        return "\n".join(f"rank {rank}:\n{Path(self._stack_path(rank)).read_text()}" for rank in hanging)

    def _stack_path(self, slot: int) -> str:
        assert self._folder is not None
        return str(Path(self._folder.name) / f"stack{slot}.txt")


def _raise_first(failures: list[tuple[float, int, bytes | None, str]], world_size: int) -> None:
    """Raise what failed first: the others often only saw their peer's connection close."""
    _, rank, pickled, text = min(failures, key=lambda failure: failure[0])
    others = "".join(
        f"\n(rank {other} failed later: {its_text.strip().splitlines()[-1]})"
        for _, other, _, its_text in sorted(failures, key=lambda failure: failure[1])
        if other != rank
    )
    report = RankTraceback(f"\n--- rank {rank} of {world_size}\n{text}{others}")
    error = RankError(f"rank {rank} of {world_size}: {text}") if pickled is None else pickle.loads(pickled)
    raise error from report


def _serve(connection: Connection, repo_root: str, stack_path: str) -> None:
    """The life of a process: import torch once, then answer calls until the pool closes the pipe."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the process that runs the tests
    if repo_root not in sys.path:
        sys.path.insert(0, repo_root)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name that does not resolve would stop gloo
    with open(stack_path, "w") as stack_file, contextlib.suppress(EOFError, OSError):
        faulthandler.register(signal.SIGUSR1, file=stack_file)
        import torch
        import torch.distributed

        torch.set_num_threads(1)
        connection.send_bytes(b"ready")
        while True:
            request = pickle.loads(connection.recv_bytes())
            is_ok, answer = _answer(*request)
            try:
                connection.send_bytes(answer)
                if is_ok:
                    connection.recv_bytes()  # RELEASE
            finally:
                _clean_up()


def _answer(
    rank: int, world_size: int, store: str | None, timeout: float, path: list[str], call: bytes
) -> tuple[bool, bytes]:
    """Run one call; whether it succeeded and pickled ("ok", result) or ("failed", time, exception, traceback)."""
    import torch
    from torch import distributed

    sys.path.extend(entry for entry in path if entry not in sys.path)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    try:
        torch.manual_seed(0)
        random.seed(0)
        if store is not None:
            shared = distributed.FileStore(store, world_size)
            limit = timedelta(seconds=timeout)
            distributed.init_process_group("gloo", store=shared, rank=rank, world_size=world_size, timeout=limit)
        function, args = pickle.loads(call)
        return True, pickle.dumps(("ok", function(*args)))
    except BaseException as error:
        time.sleep(0.05)  # gloo's threads need the interpreter to let go of a collective; freeing a run before hangs
        answer = ("failed", time.monotonic(), _pickled(error), traceback.format_exc())
        _clean_up()  # the peers' collectives fail at once, and later than this rank, instead of waiting for it
        return False, pickle.dumps(answer)


def _clean_up() -> None:
    """Leave nothing of a call behind for the next one."""
    import torch
    from torch import distributed

    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _pickled(error: BaseException) -> bytes | None:
    """The exception as bytes, or None where it does not survive pickling."""
    try:
        data = pickle.dumps(error)
        return data if isinstance(pickle.loads(data), Exception) else None
    except Exception:
        return None
