"""The processes that read images for a rank: how they start, and what to say when one dies. No reading here."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import cv2
from torch.utils.data import DataLoader

from utils.bad_records import ReaderError
from utils.errors import DataError

_CAUSES = {
    "SIGKILL": "most often the system or a batch system ran out of memory (`dmesg` tells): use fewer num_workers, a "
    "smaller batch_size, or ask for more memory",
    "SIGBUS": "a file that was being read became shorter, its disk failed, or /dev/shm is full: check the data set's "
    "files, `dmesg` and `df /dev/shm`",
}
_CRASH = "a library crashed, or somebody sent the signal: num_workers=0 reads in the training process and shows where"


def prepare_reader(_: int) -> None:
    """Run once in each reader: one thread, and an end when its rank says so; the argument is its number, unused."""
    cv2.setNumThreads(0)  # OpenCV's own threads would fight the other workers for cores
    # Launchers and terminals signal the whole process group, but the rank decides when to stop: its last step still
    # needs the readers, and torch makes an error of a reader that dies. So only the rank itself can end them.
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(faulthandler, "register"):  # not on Windows
        faulthandler.register(
            signal.SIGUSR2, file=2, all_threads=True
        )  # the watchdog asks a reader that hangs where it is
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def start_readers(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches; a reader that dies shows there, and only there.

    torch also answers a dead reader from a signal handler, with an exception wherever the program happens to be: in the
    middle of a step, while the other ranks wait in an exchange. Its check while a batch is awaited, every 5 seconds,
    finds the same.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if in_main and hasattr(signal, "SIGCHLD") else None
    items = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return items


def explain(error: Exception, items: Iterator[Any] | None = None) -> DataError:
    """What made reading stop, in words that name the cause and what to do; data errors stay as they are.

    Args:
        error: what asking for a batch, or starting to, has raised.
        items: from `start_readers`, if it got so far.
    """
    if isinstance(error, DataError):
        return error
    dead = [told for reader in getattr(items, "_workers", ()) if (told := _end_of(reader.pid, reader.exitcode))]
    if dead:
        return ReaderError("; ".join(dead))
    text = str(error)
    if "shared memory" in text or "No space left on device" in text:
        return ReaderError(
            f"no shared memory for a batch: {text.strip().splitlines()[-1]}. `df /dev/shm` shows how much there is: "
            "give the container more (docker run --shm-size=8g), or use a smaller batch_size or fewer num_workers"
        )
    if "ancdata" in text or "Too many open files" in text:
        return ReaderError(f"too many open files: {text.strip().splitlines()[-1]}. Raise the limit: `ulimit -n 65536`")
    if isinstance(error, OSError):
        return ReaderError(f"reading failed: {text}. Check the disk (`dmesg`) and the data set's files")
    return ReaderError("reading failed by a fault of the program:\n" + "".join(traceback.format_exception(error)))


def _end_of(pid: int | None, exit_code: int | None) -> str:
    """How a reader ended; empty where it lives."""
    if exit_code is None:
        return ""
    if exit_code >= 0:
        return f"reader process {pid} ended with status {exit_code}; what it wrote last is above"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = "unknown"
    return f"reader process {pid} was ended by signal {-exit_code} ({name}): {_CAUSES.get(name, _CRASH)}"
