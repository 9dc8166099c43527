"""Many people at once: images as JPEG bytes, drawn in worker processes and handed out in order. Writes no files."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import cv2

from tools.face_rendering.photo import render_face
from utils.images import encode_jpeg

Job = tuple[int, int, int]  # seed, identity, number of images
_JOBS_AHEAD = 8  # per worker: enough that nobody waits, few enough that the images of a large set do not pile up


def draw_person(job: Job) -> list[bytes]:
    """Renders the first images of one person as JPEG files; a job is (seed, identity, number of images)."""
    seed, identity, count = job
    return [encode_jpeg(*render_face(seed, identity, image)) for image in range(count)]


def draw_people(jobs: Sequence[Job], workers: int, on_images: Callable[[int], object]) -> Iterator[list[bytes]]:
    """Yields every job's images, in the order of the jobs, whatever the number of workers.

    Args:
        jobs: (seed, identity, number of images) each.
        workers: processes that draw; with 1 this process does it itself.
        on_images: told how many images were finished, for a progress bar.
    """
    if workers <= 1:
        for job in jobs:
            yield draw_person(job)
            on_images(job[2])
        return
    # a fork server forks workers from a process without threads, which has imported the slow packages once for all
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    waiting: deque[tuple[int, Future[list[bytes]]]] = deque()
    try:
        for job in jobs:
            waiting.append((job[2], pool.submit(draw_person, job)))
            if len(waiting) >= _JOBS_AHEAD * workers:
                yield _next_finished(waiting, on_images)
        while waiting:
            yield _next_finished(waiting, on_images)
    finally:
        pool.shutdown(cancel_futures=True)


def _next_finished(waiting: deque[tuple[int, Future[list[bytes]]]], on_images: Callable[[int], object]) -> list[bytes]:
    count, future = waiting.popleft()
    jpegs = future.result()
    on_images(count)
    return jpegs
