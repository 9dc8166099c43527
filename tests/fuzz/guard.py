"""What a fuzzing process may do: limits, an audit hook that sees code run or files touched, clocks. No parser here."""

from __future__ import annotations

import os
import resource
import signal
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NEVER = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.")
_NEVER += (
    "socket.",
    "ctypes.dlopen",
    "pty.spawn",
    "webbrowser.open",
    "urllib.",
    "ftplib.",
    "http.client",
    "code.__new__",
)
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
    "shutil.",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Hang(BaseException):
    """An input took longer than it may; no parser's own handler may swallow it."""


class Guard:
    """Watches this process from now on; an audit hook cannot be taken back, so only children make one.

    Attributes:
        violations: what was seen since it was last emptied.
    """

    def __init__(self, scratch: Path, *, memory: int, cpu_seconds: int) -> None:
        self._scratch = str(scratch.resolve())
        self._readable = tuple({str(ROOT), sys.prefix, sys.base_prefix, "/proc", "/sys", *filter(None, sys.path)})
        self.violations: list[str] = []
        self._active = False
        sys.addaudithook(self._see)
        signal.signal(signal.SIGALRM, self._ring)
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def start(self, seconds: float) -> None:
        """Begins to watch one input."""
        self._active = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        """Ends it."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._active = False

    def _ring(self, _: int, __: types.FrameType | None) -> None:
        raise Hang

    def _see(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, mode, flags = (*arguments, None, 0)[:3]
            if isinstance(path, int):
                return
            place = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes)) else str(path)
            writes = bool(int(flags or 0) & _WRITES) if not mode else any(letter in str(mode) for letter in "wax+")
            if not place.startswith(self._scratch) and (writes or not place.startswith(self._readable)):
                self._refuse(f"opens {place} {'to write' if writes else 'to read'}")
        elif event.startswith(_NEVER):
            self._refuse(f"{event} {arguments!r:.80}")
        elif event.startswith(_CHANGES):
            path = os.path.abspath(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes)) else ""
            if not path.startswith(self._scratch):
                self._refuse(f"{event} {path}")

    def _refuse(self, what: str) -> None:
        self.violations.append(what)
        raise PermissionError(f"refused by the guard: {what}")


class PeakMemory:
    """The most memory this process has held; getrusage's figure would be that of the process which started it."""

    def __init__(self) -> None:
        self._status = os.open("/proc/self/status", os.O_RDONLY) if Path("/proc/self/status").exists() else -1

    def read(self) -> int:
        """Bytes; 0 where the system does not tell."""
        if self._status < 0:
            return 0
        text = os.pread(self._status, 4096, 0)
        return int(text[text.index(b"VmHWM:") + 6 :].split(None, 1)[0]) * 1024
