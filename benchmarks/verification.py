"""Verification on pairs of faces beside arcface_torch's: seconds and memory for the same file, net and weights.

Usage: python -m benchmarks.verification [--data data/lfw] [--pairs 200] [--arcface-torch DIR]

Both read one .bin: LFW's pairs where the folder is there, else drawn faces. Each contestant is a process of its own;
what counts runs from opening the file to the scores: reading, decoding, embedding image and mirror image, folds. Theirs
is the clone's `load_bin` and `test` with batches of 10, on its own net with our weights; mxnet's decoder is a stand-in
on OpenCV where mxnet is missing. The limit is the net alone on as many images as ours has to embed, and their mirrors.
LFW's pairs name many images twice, and ours embeds each once: a row without that says what it is worth.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from backbones import build_backbone
from benchmarks.measure import ROOT, peak_bytes, run_child, save, surroundings, table
from benchmarks.order import forget_peak
from benchmarks.peer import add_peer_option, find_peer
from eval.bin_files import write_bin
from eval.pairs import load_bin, load_pair_list
from eval.verification import verify
from tools.face_rendering.population import Population
from tools.synthetic_faces import PAIRS_FILE, render_dataset
from utils.distributed import start_ranks
from utils.memory import prefer_huge_pages
from utils.turns import alternate, summarize

OURS, EACH, THEIRS = "ours", "ours, repeated images embedded again", "arcface_torch"
BATCH, THEIR_BATCH = 64, 10  # the defaults of both
NETWORK = "mbf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON; with --child one contestant, and prints that."""
    options = parse(arguments)
    if options.child:
        with redirect_stdout(sys.stderr):  # theirs prints
            found = run_contestant(options.child, options.file, options.threads, options.arcface_torch)
        print(json.dumps(found))
        return 0
    peer, reason = find_peer(options.arcface_torch)
    names = [OURS, EACH, *([THEIRS] if peer else [])]
    with tempfile.TemporaryDirectory() as folder:
        files = {pairs: pair_file(Path(folder), options.data, pairs) for pairs in (options.pairs, 2 * options.pairs)}
        runs = run_rounds(files[options.pairs], names, options)
        # once, for the memory: does it grow with the set?
        twice = {name: one_run(files[2 * options.pairs], name, options)["memory_bytes"] for name in names}
        description = describe(files[options.pairs])
    markdown = f"{figures(runs, twice)}\n\n{description}" + (f"\n\n{reason}" if reason else "")
    details = {**surroundings(), "threads": options.threads, "pairs": options.pairs, "rounds": runs, "twice": twice}
    details |= {"arcface_torch": peer.describe()} if peer else {}
    print(f"{markdown}\nwrote {save('verification', 'Verification', markdown, details, options.results)}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verification", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=ROOT / "data/lfw", help="images and pairs.txt (data/lfw)")
    parser.add_argument("--pairs", type=int, default=200, help="how many of them, even (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/benchmarks", help="folder for the JSON")
    parser.add_argument("--child", choices=(OURS, EACH, THEIRS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    add_peer_option(parser)
    return parser.parse_args(arguments)


def pair_file(folder: Path, data: Path, pairs: int) -> Path:
    """A .bin of the first same and the first different pairs of LFW, half each; of drawn faces without LFW.

    Whole stretches of the list keep its share of repeated images.
    """
    path = folder / f"lfw_{pairs}.bin"
    if not (data / "pairs.txt").is_file():
        people = Population(identities=1, images_per_identity=1, eval_identities=40, pairs=20 * max(1, pairs // 20))
        render_dataset(folder / str(pairs), people)
        return folder / str(pairs) / PAIRS_FILE
    pair_set = load_pair_list(data / "images", data / "pairs.txt")
    chosen = [np.flatnonzero(pair_set.is_same == same)[: pairs // 2] for same in (True, False)]
    order = np.stack(chosen, axis=1).reshape(-1)  # alternating, so that every fold has both
    places = (2 * order[:, None] + np.arange(2)).reshape(-1)
    files = [data / "images" / pair_set.names[place] for place in places.tolist()]  # encoded as they are
    write_bin(path, [file.read_bytes() for file in files], pair_set.is_same[order])
    return path


def run_rounds(file: Path, names: Sequence[str], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Name -> what each round measured."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def contestant(name: str) -> Callable[[], float]:
        def run() -> float:
            runs[name].append(one_run(file, name, options))
            return float(runs[name][-1]["seconds"])

        return run

    alternate({name: contestant(name) for name in names}, options.rounds)
    return runs


def one_run(file: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One contestant in a process of its own."""
    arguments = ["--child", name, "--file", str(file), "--threads", str(options.threads)]
    clone = ["--arcface-torch", str(options.arcface_torch)] if options.arcface_torch else []
    return run_child("benchmarks.verification", [*arguments, *clone], threads=options.threads)


def run_contestant(name: str, file: Path, threads: int, clone: Path | None) -> dict[str, Any]:
    """Seconds, growth of the resident peak, accuracy; for ours also the seconds of the net alone."""
    if name != THEIRS:
        prefer_huge_pages()  # both as our command begins
        start_ranks("cpu", threads)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = build_backbone(NETWORK, embedding_size=512).eval()
    if name == THEIRS:
        return run_theirs(net.state_dict(), file, clone)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as load_embedder does
    before = forget_peak()
    warm_up(net, BATCH)
    start = time.perf_counter()
    pair_set = load_bin(file)
    if name == EACH:
        pair_set = replace(pair_set, first_index=np.empty(0, np.int64))
    result = verify(net, pair_set, protocols=["insightface"], batch_size=BATCH)[0]
    seconds = time.perf_counter() - start
    memory = peak_bytes() - before
    images = len(np.unique(pair_set.first_index)) if len(pair_set.first_index) else len(pair_set.images)
    found = {"seconds": seconds, "memory_bytes": memory, "accuracy": result.accuracy, "images": images}
    if name == OURS:
        found["net_seconds"] = 2 * min(net_alone(net, images) for _ in range(2))
    return found


def run_theirs(weights: dict[str, torch.Tensor], file: Path, clone: Path | None) -> dict[str, Any]:
    """The clone's verification as its callback runs it, on a CPU."""
    peer, reason = find_peer(clone)
    if peer is None:
        raise SystemExit(reason)
    with peer.running():
        module = peer.module("eval.verification")
        import sklearn.preprocessing  # noqa: F401  # it uses this and imports only sklearn

        # its interpolation over false accept rates that repeat is refused by newer scipy: the same line, without them
        vars(module)["interpolate"] = SimpleNamespace(interp1d=first_of_each)
        net = peer.module("backbones").get_model(NETWORK, fp16=False, num_features=512)
        net.load_state_dict(weights)
        net.eval()
        before = forget_peak()
        warm_up(net, THEIR_BATCH)
        start = time.perf_counter()
        data = module.load_bin(str(file), (112, 112))
        _, _, accuracy, _, _, _ = module.test(data, net, THEIR_BATCH, 10)
        seconds = time.perf_counter() - start
    images = len(data[0][0])
    return {"seconds": seconds, "memory_bytes": peak_bytes() - before, "accuracy": float(accuracy), "images": images}


def first_of_each(x: Any, y: Any, kind: str) -> Callable[[float], float]:
    """Linear interpolation through the first point at each x."""
    places, first = np.unique(x, return_index=True)
    return lambda wanted: float(np.interp(wanted, places, np.asarray(y)[first]))


@torch.inference_mode()
def warm_up(net: torch.nn.Module, batch: int) -> None:
    """Threads started, kernels chosen, the memory of a batch taken once."""
    net(torch.zeros(batch, 3, 112, 112))


@torch.inference_mode()
def net_alone(net: torch.nn.Module, images: int) -> float:
    """Seconds of the net on that many images that lie ready in the layout it likes."""
    pixels = torch.rand(BATCH, 3, 112, 112).contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    for first in range(0, images, BATCH):
        net(pixels[: min(BATCH, images - first)])
    return time.perf_counter() - start


def describe(file: Path) -> str:
    """What was verified on."""
    pair_set = load_bin(file)
    distinct = len(np.unique(pair_set.first_index))
    return (
        f"{file.name}: {len(pair_set.is_same)} pairs, {len(pair_set.images)} images, {distinct} of them distinct; "
        f"{NETWORK}, fp32, with mirror images; batches of {BATCH}, theirs of {THEIR_BATCH}. Memory is the growth of "
        "the resident peak since the net was built."
    )


def figures(runs: dict[str, list[dict[str, Any]]], twice: dict[str, int]) -> str:
    """Markdown: a row per contestant."""
    seconds = {name: [run["seconds"] for run in own] for name, own in runs.items()}
    base = THEIRS if THEIRS in runs else OURS
    rows = []
    for name, own in summarize(seconds, base).items():
        limits = [run["net_seconds"] / run["seconds"] for run in runs[name] if "net_seconds" in run]
        memory = sorted(run["memory_bytes"] for run in runs[name])[len(runs[name]) // 2]
        rows.append(
            [
                name, f"{own.median:.2f}", f"{own.smallest:.2f} .. {own.largest:.2f}", f"{1 / own.ratio:.2f}",
                f"{sorted(limits)[len(limits) // 2]:.0%}" if limits else "-", f"{memory / 2**20:.0f}",
                f"{twice[name] / 2**20:.0f}", f"{runs[name][0]['accuracy']:.4f}",
            ]
        )  # fmt: skip
    head = ["", "seconds", "spread", f"times {base}", "of the limit", "memory, MiB", "with twice the pairs", "accuracy"]
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
