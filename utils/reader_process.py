"""What a process that reads images for a rank needs besides its work. No reading here."""

from __future__ import annotations

import os
import signal
import threading

import cv2


def prepare_reader(_: int) -> None:
    """Run once in each reader: one thread, and an end when its rank says so; the argument is its number, unused."""
    cv2.setNumThreads(0)  # OpenCV's own threads would fight the other workers for cores
    # Launchers and terminals signal the whole process group, but the rank decides when to stop: its last step still
    # needs the readers, and torch makes an error of a reader that dies. So only the rank itself can end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
