"""Runs the step of a dump again, on as many ranks as the run had, and shows where its numbers stop being finite.

    python -m tools.replay work_dirs/NAME/dumps/step_000000123 [--device cpu] [--anomaly] [--layers]

Exit status: 0 the step was repeated bit for bit; 3 it is bad here too, but not bit for bit (another device or version);
1 here it is not bad; 2 the dump cannot be run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch._C._distributed_c10d import FileStore

from dataset import Batch
from tools.replay_walk import Walk, describe_head, gradient_table
from training.determinism import determinism
from training.dump import fingerprint
from training.dumped_run import Dump, DumpError, read_dump, rebuild
from training.nonfinite import LAST_STAGE, describe_bad_step, find_offender
from training.rollback import Buffers
from training.run import Run
from training.step import forward_backward
from utils.command_line import examples_text
from utils.config import ConfigError
from utils.distributed import COLLECTIVE_TIMEOUT, Ranks

SAME, OTHER, UNUSABLE, ALIKE = 0, 1, 2, 3
_GRACE = 20.0  # seconds that the other ranks get when one has ended
_SHOWN = 8  # layers of each kind


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.replay",
        description="Run the step of a dump again.",
        epilog=examples_text(["python -m tools.replay work_dirs/NAME/dumps/step_000000123"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dump", type=Path, help="folder step_... that a run wrote")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the run's, where there are as many GPUs")
    parser.add_argument("--anomaly", action="store_true", help="also let torch name the operation of a bad gradient")
    parser.add_argument("--layers", action="store_true", help="show every layer's gradient, not only the telling ones")
    options = parser.parse_args(arguments)
    try:
        dump = read_dump(options.dump)
        device = _choose_device(options.device, dump)
        results = _run_ranks(dump, device, options.anomaly)
    except (DumpError, ConfigError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return UNUSABLE
    return report(dump, device, results, options.layers)


def replay(dump: Dump, ranks: Ranks, *, has_anomaly: bool = False) -> dict[str, Any]:
    """Runs the step twice (once as it was, once watched), with `has_anomaly` a third time; collective.

    Returns:
        JSON-able findings of this rank.
    """
    run, batches = rebuild(dump, ranks)
    step, buffers = int(dump.facts["step"]), Buffers(run.backbone, run.fc.head)
    loss, embeddings = forward_backward(run, batches, step)
    value = float(loss)
    buffers.put_back()
    offender = find_offender(run, batches, embeddings)
    found: dict[str, Any] = {"loss": repr(value), **fingerprint(run, embeddings), "head": describe_head(run)}
    found |= {
        "is_bad": offender.stage < LAST_STAGE or not math.isfinite(value),
        "text": describe_bad_step(run, offender, value, step),
        "layers": gradient_table(run),
    }
    _clear(run)
    run.backbone._compiled_call_impl = None  # hooks want the modules as they are written
    with Walk(run.backbone) as walk:
        forward_backward(run, batches, step)
    found |= {"forward": walk.forward, "backward": walk.backward}
    if has_anomaly:
        _clear(run)
        buffers.put_back()
        found["anomaly"] = _find_anomaly(run, batches, step)
    return found


def _clear(run: Run) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    run.fc_optimizer.zero_grad()


def _find_anomaly(run: Run, batches: list[Batch], step: int) -> str:
    """What torch's anomaly detection says; it stops at the first backward operation that returns a NaN."""
    try:
        with warnings.catch_warnings(record=True) as told, torch.autograd.set_detect_anomaly(True):
            warnings.simplefilter("always")
            forward_backward(run, batches, step)
    except RuntimeError as error:
        # torch tells the place of the forward operation in a warning beside the error.
        places = [str(warning.message) for warning in told if "Traceback of forward call" in str(warning.message)]
        return "\n".join([str(error).splitlines()[0], *places])
    return "no backward operation returned a NaN"


def _choose_device(wanted: str | None, dump: Dump) -> str:
    """Where to run: the GPUs only if each rank has one."""
    if (wanted or dump.facts["device"]) != "cuda":
        return "cpu"
    count = torch.cuda.device_count()
    if count >= dump.world_size:
        return "cuda"
    if wanted == "cuda":
        raise DumpError(f"{dump.folder}: {dump.world_size} ranks, and torch sees {count} GPU(s): use --device cpu")
    return "cpu"


def _run_ranks(dump: Dump, device: str, has_anomaly: bool) -> list[dict[str, Any]]:
    """Starts the ranks and collects what they found.

    Raises:
        DumpError: one of them could not.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        processes = [
            context.Process(target=_serve, args=(dump.folder, rank, device, has_anomaly, scratch), daemon=True)
            for rank in range(dump.world_size)
        ]
        for process in processes:
            process.start()
        try:
            # When one rank has failed the others wait for it in vain.
            while any(process.is_alive() for process in processes) and not any(p.exitcode for p in processes):
                wait([process.sentinel for process in processes if process.is_alive()], 1)
            for process in processes:
                process.join(_GRACE if any(p.exitcode for p in processes) else None)
        finally:
            for process in processes:
                process.kill()
        answers = [Path(scratch) / f"{rank}.json" for rank in range(dump.world_size)]
        found = [
            json.loads(path.read_text()) if path.exists() else {"error": "it died", "when": math.inf}
            for path in answers
        ]
    failed = [(answer["when"], rank, answer["error"]) for rank, answer in enumerate(found) if "error" in answer]
    if failed:
        _, rank, text = min(failed)
        raise DumpError(f"{dump.folder}: rank {rank}: {text}")
    return found


def _serve(folder: Path, rank: int, device: str, has_anomaly: bool, scratch: str) -> None:
    """The life of one rank."""
    answer: dict[str, Any]
    try:
        dump = read_dump(folder)
        torch.set_num_threads(int(dump.facts["threads"]))
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are here; a host name may not resolve
        place = torch.device("cuda", rank) if device == "cuda" else torch.device("cpu")
        if device == "cuda":
            torch.cuda.set_device(place)
        with determinism(dump.config.deterministic):
            store = FileStore(f"{scratch}/store", dump.world_size)
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=dump.world_size, timeout=COLLECTIVE_TIMEOUT
            )
            ranks = Ranks(rank, dump.world_size, rank, dump.world_size, place)
            answer = replay(dump, ranks, has_anomaly=has_anomaly)
    except (DumpError, ConfigError) as error:
        answer = {"error": str(error), "when": time.time()}
    except Exception:
        answer = {"error": traceback.format_exc(), "when": time.time()}
    path = Path(scratch) / f"{rank}.json"
    path.with_suffix(".part").write_text(json.dumps(answer))
    path.with_suffix(".part").rename(path)
    os._exit(1 if "error" in answer else 0)  # no farewell: a rank that an anomaly stopped left the others alone


def report(dump: Dump, device: str, results: list[dict[str, Any]], shows_all: bool) -> int:
    """Prints what was found; returns the exit status."""
    facts, first = dump.facts, results[0]
    print(f"{dump.folder}: step {facts['step']} of {dump.world_size} rank(s) on {facts['device']}, here on {device}")
    print(f"the run said:  {facts['text']}; loss {facts['loss']}")
    print(f"this replay:   {first['text'] if first['is_bad'] else 'every number is finite'}; loss {first['loss']}")
    differing = list(_differences(facts, results))
    if not differing:
        print("repeated bit for bit: loss, embeddings and gradients on all ranks")
    else:
        print(f"not bit for bit: {len(differing)} things differ, first: {', '.join(differing[:4])}")
    for rank, found in enumerate(results):
        print(f"\nrank {rank}")
        print(f"  forward:  {found['forward'] or 'every output of the backbone is finite'}")
        for line in found["head"]:
            print(f"    head {line}")
        print(f"  backward: {found['backward'] or 'every gradient inside the backbone is finite'}")
        if "anomaly" in found:
            print("  anomaly:  " + found["anomaly"].replace("\n", "\n    "))
    _print_layers(first["layers"], shows_all)
    if not differing:
        return SAME
    return ALIKE if first["is_bad"] else OTHER


def _differences(facts: Mapping[str, Any], results: list[dict[str, Any]]) -> Iterator[str]:
    """What is not as the run had it."""
    if results[0]["loss"] != facts["loss"]:
        yield "the loss"
    for rank, (then, now) in enumerate(zip(facts["ranks"], results, strict=True)):
        if then.get("embeddings") != now["embeddings"]:
            yield f"the embeddings of rank {rank}"
        old = then.get("gradients", {})
        for name in sorted(old.keys() | now["gradients"].keys()):
            if old.get(name) != now["gradients"].get(name):
                yield f"the gradient of {name} on rank {rank}"


def _print_layers(layers: list[list[Any]], shows_all: bool) -> None:
    """Norms of weights and gradients, from the input to the output; without `shows_all` the telling ones."""
    largest = sorted((row for row in layers if math.isfinite(row[2])), key=lambda row: -row[2])[:_SHOWN]
    bad = [row for row in layers if not math.isfinite(row[2])]
    telling = layers if shows_all else [row for row in layers if row in largest or row in bad[-_SHOWN:]]
    print(f"\ngradient norms on rank 0 ({len(bad)} of {len(layers)} not finite; {len(telling)} shown)")
    for name, weight, gradient in telling:
        print(f"  {name:48} weights {weight:10.4g}   gradient {gradient:10.4g}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
