"""What launchers say beyond a rank's place: Slurm's variables, torchrun's restarts. No process group here."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import uuid
from datetime import timedelta
from typing import NoReturn

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

SAVER = "checkpoint"  # name of the thread that writes checkpoints
_BEGUN, _FAILURE = "begun", "failure"


def adopt_slurm() -> None:
    """Sets torchrun's variables from Slurm's where `srun` has started several tasks of this program itself.

    Rank 0 must be on the first node of the step, as with all of Slurm's distributions but `arbitrary`; MASTER_ADDR and
    MASTER_PORT can be set to say otherwise. The port comes from the job's number: jobs that share a node differ.
    """
    given = os.environ
    tasks = given.get("SLURM_STEP_NUM_TASKS") or given.get("SLURM_NTASKS") or "1"
    is_step = given.get("SLURM_STEP_ID", "").isdecimal()  # not so in the batch script itself
    if "RANK" in given or "WORLD_SIZE" in given or not is_step or int(tasks) < 2:
        return
    os.environ.update(
        RANK=given["SLURM_PROCID"],
        WORLD_SIZE=tasks,
        LOCAL_RANK=given["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=_local_tasks(given.get("SLURM_STEP_TASKS_PER_NODE", tasks), int(given.get("SLURM_NODEID", 0))),
    )
    job = int(given.get("SLURM_JOB_ID", "0")) * 17 + int(given["SLURM_STEP_ID"])
    os.environ.setdefault("MASTER_ADDR", _first_host(given.get("SLURM_STEP_NODELIST", "localhost")))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 10000))


def _local_tasks(layout: str, node: int) -> str:
    """Tasks of one node, from Slurm's `4(x2),3`: 4 on each of the first two nodes, 3 on the third."""
    counts: list[str] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout):
        counts += [count] * int(times or 1)
    return counts[node]


def _first_host(hosts: str) -> str:
    """`gpu[07-09,12],cpu1` -> `gpu07`."""
    match = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\])?([^\[,]*)", hosts)
    return "".join(part or "" for part in match.groups()) if match else hosts


def is_begun() -> bool:
    """Whether this is a restart by torchrun of ranks that had begun to train: they go on from their last checkpoint.

    A count of restarts alone does not tell: ranks that were refused, because their folder holds another run, are
    restarted too, and must be refused again.
    """
    store = _agent_store()
    return store is not None and store.check([_BEGUN])


def tell_begun() -> None:
    """Leaves word for the ranks after a restart that these have begun to train."""
    store = _agent_store()
    if store is not None:
        store.set(_BEGUN, "1")


def tell_failure(text: str) -> None:
    """Leaves word for the ranks after a restart of an error that a restart cannot mend; the first of several stays."""
    store = _agent_store()
    if store is not None:
        store.compare_set(_FAILURE, "", text)


def past_failure() -> str | None:
    """The text of the error that ended the ranks before this restart and cannot be mended by it, if there is one."""
    store = _agent_store()
    return store.get(_FAILURE).decode() if store is not None and store.check([_FAILURE]) else None


def fresh_store(rank: int, world_size: int, timeout: timedelta) -> Store | None:
    """The part of torchrun's store in which the ranks of this start meet; collective. None without such a store.

    The store outlives the ranks, and gloo and NCCL take the addresses of ranks that are gone for those of their
    successors (https://github.com/pytorch/pytorch/issues/135712). The count of restarts cannot tell them apart: each
    node has its own. So the main rank gives this start a name, and hands it to everyone who asks under a name
    that nobody had before.

    Raises:
        RuntimeError: not all ranks came in time.
    """
    store = _agent_store()
    if store is None:
        return None
    store.set_timeout(timeout)
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"asks/{rank}", own)
        name = store.get(f"told/{own}").decode()
        store.set(f"here/{name}/{rank}", "1")
        return PrefixStore(f"start/{name}", store)
    deadline, missing = time.monotonic() + timeout.total_seconds(), set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if store.check([f"asks/{other}"]):  # it may be one who is gone: only who answers is here
                store.set(f"told/{store.get(f'asks/{other}').decode()}", own)
        missing = {other for other in missing if not store.check([f"here/{own}/{other}"])}
        if missing and time.monotonic() > deadline:
            raise RuntimeError(f"ranks {sorted(missing)} did not start within {timeout}")
        time.sleep(0.02 if missing else 0.0)
    return PrefixStore(f"start/{own}", store)


def leave(status: int) -> NoReturn:
    """Ends a process after an error, once a checkpoint that is being written in the background is whole.

    A rank among others ends without freeing anything: freeing a process group right after a collective can wait for
    ever for one of its own threads.
    """
    for thread in threading.enumerate():
        if thread.name == SAVER:
            thread.join(600.0)
    sys.stdout.flush()
    if "RANK" in os.environ:
        os._exit(status)
    sys.exit(status)


def _agent_store() -> Store | None:
    """The store of torchrun itself, which lives as long as it does, through all restarts; None without one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=30),
            wait_for_workers=False,
        )
    except RuntimeError:
        return None
    return PrefixStore("train", store)
