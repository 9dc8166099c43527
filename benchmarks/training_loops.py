"""One short training run per call, ours or arcface_torch's, with the time of each part. Started by whole_run.py.

Usage: python -m benchmarks.training_loops {ours,theirs} --rec DIR --network NAME [--arcface-torch DIR] ...

The last line printed is JSON. Both loops are timed by the same marks: a data request, its answer, and hooks around the
backbone, the layer and the optimizer; the time since the last mark belongs to the part that has just ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from easydict import EasyDict
from torch import nn
from torch.autograd.graph import register_multi_grad_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from backbones import build_backbone
from benchmarks.measure import peak_bytes
from benchmarks.peer import ArcFaceTorch, add_peer_option, find_peer
from training.build import build_run, build_stream
from training.preflight import inspect_run
from training.step import train_step
from utils.config import Config
from utils.distributed import start_ranks, stop_ranks

PARTS = ("data", "backbone forward", "head forward", "head backward", "backbone backward", "update", "other")
SCALE, MARGIN = 64.0, 0.4


class Laps:
    """Adds the time between marks to named parts, from a given step on.

    Args:
        warm_up: steps before the clock counts.
    """

    def __init__(self, warm_up: int) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.warm_up, self.step, self.images = warm_up, -1, 0
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        """What ran since the last mark was `part`."""
        now = time.perf_counter()
        if self.step >= self.warm_up:
            self.seconds[part] += now - self._last
        self._last = now

    def batches(self, source: Iterable[Any], steps: int) -> Iterator[Any]:
        """The first batches of a loader; the wait for each is "data", a pass through the loop is a step."""
        stream = iter(source)
        for _ in range(steps):
            self.mark("other")
            self.step += 1
            batch = next(stream)
            self.mark("data")
            if self.step >= self.warm_up:
                self.images += len(batch[1] if isinstance(batch, (list, tuple)) else batch.labels)
            yield batch
        self.mark("other")

    def watch_backbone(self, net: nn.Module) -> nn.Module:
        """Marks a net's forward pass, and the arrival of its output's gradient, which ends the head's backward."""

        def finish(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            self.mark("backbone forward")
            if output.requires_grad:  # not while DistributedDataParallel or a check looks at the net
                register_multi_grad_hook((output,), lambda _: self.mark("head backward"))

        net.register_forward_pre_hook(lambda *_: self.mark("other"))
        net.register_forward_hook(finish)
        return net

    def watch_head(self, layer: nn.Module) -> nn.Module:
        """Marks the layer's forward pass."""
        layer.register_forward_hook(lambda *_: self.mark("head forward"))
        return layer

    def watch_optimizers(self) -> None:
        """Marks torch's optimizers; what precedes a step's first (clipping, checks) counts as backbone backward."""
        register_optimizer_step_pre_hook(lambda *_: self.mark("backbone backward"))
        register_optimizer_step_post_hook(lambda *_: self.mark("update"))

    def result(self) -> dict[str, Any]:
        """Images per second, share of each part, peak memory of the process."""
        total = sum(self.seconds.values())
        return {
            "images_per_second": self.images / total,
            "parts": {part: value / total for part, value in self.seconds.items()},
            "peak_bytes": peak_bytes(),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one loop."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_loops", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("loop", choices=("ours", "theirs"))
    parser.add_argument("--rec", required=True, help="folder with train.rec and train.idx")
    parser.add_argument("--network", default="mbf")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    add_peer_option(parser)
    options = parser.parse_args(arguments)
    laps = Laps(options.warm_up)
    laps.watch_optimizers()
    if options.loop == "ours":
        run_ours(options, laps)
    else:
        peer, reason = find_peer(options.arcface_torch)
        if peer is None:
            parser.error(reason)
        run_theirs(peer, options, laps)
    print(json.dumps(laps.result()))
    return 0


def config_keys(options: argparse.Namespace) -> dict[str, Any]:
    """Our config of the run: what arcface_torch does, and our defaults where it has no opinion."""
    return {
        "rec": str(options.rec), "network": options.network, "embedding_size": options.width, "head": "cosface",
        "head_options": {"scale": SCALE, "margin": MARGIN}, "batch_size": options.batch, "num_epoch": 1,
        "num_workers": options.workers, "precision": "fp32", "lr": 0.02, "lr_power": 1.0, "val_targets": (),
    }  # fmt: skip


def run_ours(options: argparse.Namespace, laps: Laps) -> None:
    """train.py's loop without its log and files: the same parts from the same builders, one step after the other."""
    ranks = start_ranks("cpu", torch.get_num_threads())
    config = Config(**config_keys(options))
    run = build_run(config, ranks, inspect_run(config, device="cpu"))
    laps.watch_backbone(run.backbone)
    laps.watch_head(run.fc)
    update = run.fc_optimizer.step

    def watched_update() -> None:
        laps.mark("other")
        update()
        laps.mark("update")

    with mock.patch.object(run.fc_optimizer, "step", watched_update):
        for step, batch in enumerate(laps.batches(build_stream(run, 0), options.steps)):
            train_step(run, [batch], step)
    stop_ranks()


def run_theirs(peer: ArcFaceTorch, options: argparse.Namespace, laps: Laps) -> None:
    """arcface_torch's train_v2.main as it is; around it: its config as a dict, marks, and an end after `steps`."""
    with peer.running(), tempfile.TemporaryDirectory(prefix="arcface-torch-") as folder:
        script = peer.module("train_v2")
        config = EasyDict(peer.module("configs.base").config)
        config.update(
            rec=str(options.rec), network=options.network, embedding_size=options.width, output=folder,
            batch_size=options.batch, num_workers=options.workers, num_classes=options.classes, lr=0.02, num_epoch=1,
            num_image=options.batch * options.steps, warmup_epoch=0, val_targets=[], margin_list=(1.0, 0.0, MARGIN),
            fp16=False, frequent=10, verbose=10**9,
        )  # fmt: skip
        get_model, get_loader, layer = script.get_model, script.get_dataloader, script.PartialFC_V2

        def model(name: str, **arguments: Any) -> nn.Module:
            return laps.watch_backbone(_net(name, get_model, **arguments))

        def loader(*arguments: Any, **keys: Any) -> Iterator[Any]:
            return laps.batches(get_loader(*arguments, **keys), options.steps)

        def partial_fc(*arguments: Any, **keys: Any) -> nn.Module:
            return laps.watch_head(layer(*arguments, **keys))

        with mock.patch.multiple(
            script, get_config=lambda _: config, get_model=model, get_dataloader=loader, PartialFC_V2=partial_fc
        ):
            script.main(argparse.Namespace(config="benchmark"))


def one_net_step(net: nn.Module, batch: int) -> Callable[[], None]:
    """Forward, backward and SGD of a face net of any code on one fixed batch, as benchmarks/backbones.py times ours."""
    images = torch.rand(batch, 3, 112, 112) * 2 - 1
    gradient = torch.randn(batch, 512) / batch
    optimizer = torch.optim.SGD(net.train().parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        torch.autograd.backward(net(images), gradient)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _net(name: str, theirs: Any, **arguments: Any) -> nn.Module:
    """Its own net where it has one of that name; ours where it has not ("small"), so that the net is the same."""
    try:
        net: nn.Module = theirs(name, **arguments)
    except (ValueError, TypeError):
        return build_backbone(name, embedding_size=arguments["num_features"])
    return net


if __name__ == "__main__":
    sys.exit(main())
