"""What sampling of classes does to a head: losses and gradients of a trained run, sampled against all classes.

Usage: python -m benchmarks.sampling work_dirs/NAME [--heads arcface:scale=30:margin=.3,...] [--rates .3] [--batch 32]

Embeds a few training batches with the backbone of a checkpoint, and draws the negatives many times on its prototypes,
in float64 on one rank. Classes of the batch always take part, and at least as many classes as there are samples: with
few classes only a small batch lets a small rate bite.

    classes   classes that take part; the printed `own` is the mean number of those of the batch
    loss      mean loss / mean loss on all classes
    bias      |mean gradient over the draws - gradient on all classes| / |gradient on all classes|, rms of the batches,
              less what the finite number of draws adds; w: of prototypes, o: of those outside the batch, x: embeddings
    cos       cosine between one draw's gradient and that on all classes, mean
    missed    share of samples whose hardest non-target was not drawn
    flips     share of samples that are right among the drawn classes and wrong among all
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones import build_backbone
from benchmarks.measure import surroundings
from dataset import build_loader, open_source
from losses import ClassStatistics, PartialFC, build_head
from utils.checkpoint import empty_tensors, latest_checkpoint, load_checkpoint, read_manifest
from utils.images import to_model_input

COLUMNS = ("loss", "bias_w", "bias_o", "bias_x", "cos_w", "cos_x", "missed", "flips")


@dataclass(frozen=True)
class Trained:
    """A checkpoint's config, steps, prototypes and head state by name, and float64 embeddings (B, D) with labels."""

    config: dict[str, Any]
    step: int
    classifier: dict[str, Tensor]
    batches: list[tuple[Tensor, Tensor]]
    class_counts: Tensor


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass; gradients of all prototypes (C, D) and of the embeddings (B, D)."""

    loss: float
    stats: ClassStatistics
    prototypes: Tensor
    embeddings: Tensor
    num_classes: int


@dataclass
class Spread:
    """Gradients of one batch's draws: running sums of their difference to the full ones, and of the cosines."""

    draws: int = 0
    difference: Tensor | float = 0.0
    square: float = 0.0
    full_square: float = 0.0
    cosine: float = 0.0

    def add(self, drawn: Tensor, full: Tensor) -> None:
        """One draw and the full gradient with the same noise."""
        self.draws += 1
        self.difference = self.difference + (drawn - full)
        self.square += float((drawn - full).square().sum())
        self.full_square += float(full.square().sum())
        self.cosine += float((drawn * full).sum() / (drawn.norm() * full.norm()).clamp_min(1e-300))

    def squared_bias(self) -> float:
        """|mean difference|^2 less what the draws' variance contributes: unbiased, so it may fall below 0."""
        mean_square = float(torch.as_tensor(self.difference).square().sum()) / self.draws**2
        return mean_square - (self.square / self.draws - mean_square) / (self.draws - 1)


@dataclass
class Tally:
    """What is gathered for one head, rate and correction: a Spread per batch, the numbers of each draw."""

    spreads: dict[str, list[Spread]] = field(default_factory=lambda: {"w": [], "o": [], "x": []})
    draws: list[dict[str, float]] = field(default_factory=list)

    def add(self, drawn: Pass, full: Pass, is_outside: Tensor) -> None:
        """One draw of the current batch; `is_outside` (C,) marks the classes that do not occur in it."""
        self.spreads["w"][-1].add(drawn.prototypes, full.prototypes)
        self.spreads["o"][-1].add(drawn.prototypes[is_outside], full.prototypes[is_outside])
        self.spreads["x"][-1].add(drawn.embeddings, full.embeddings)
        target, sampled, hardest = drawn.stats.target, drawn.stats.hardest, full.stats.hardest
        # The products may be rounded differently among other classes; nothing closer than that is another class.
        missed = (sampled < hardest - 1e-9 * hardest.abs()).double().mean().item()
        flips = ((target >= sampled) & (target < hardest)).double().mean().item()
        losses = {"loss": drawn.loss, "full_loss": full.loss}
        self.draws.append({"classes": drawn.num_classes, **losses, "missed": missed, "flips": flips})

    def row(self) -> dict[str, float]:
        """The columns of the table, and `noise`: a draw's standard deviation relative to the full gradient's norm."""
        found = {name: statistics.mean(draw[name] for draw in self.draws) for name in self.draws[0]}
        found["loss"] /= found["full_loss"]
        for name, spreads in self.spreads.items():
            full_square = sum(spread.full_square / spread.draws for spread in spreads)
            bias_square = sum(spread.squared_bias() for spread in spreads)
            noise_square = sum(spread.square / spread.draws for spread in spreads) - bias_square
            found[f"bias_{name}"] = (max(bias_square, 0.0) / full_square) ** 0.5
            found[f"noise_{name}"] = (max(noise_square, 0.0) / full_square) ** 0.5
            found[f"cos_{name}"] = statistics.mean(spread.cosine / spread.draws for spread in spreads)
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a run with checkpoints")
    add("--checkpoint", help="name of one in the run's checkpoints/ (default: the newest)")
    add("--rec", help="training data (default: as in the run's config)")
    add("--heads", help="comma-separated, of the same kind of similarity (default: the run's own)")
    add("--rates", type=lambda text: [float(rate) for rate in text.split(",")], default="1,.5,.3,.1")
    add("--batch", type=int, default=32, help="images a batch (default: %(default)s)")
    add("--batches", type=int, default=8, help="(default: %(default)s)")
    add("--draws", type=int, default=64, help="of negatives, a batch (default: %(default)s)")
    add("--out", type=Path, default=Path("work_dirs/benchmarks/sampling.json"))
    options = parser.parse_args(arguments)
    if min(options.draws - 1, options.batches, options.batch) < 1:
        parser.error("--draws: at least 2; --batch and --batches: at least 1")
    trained = load_trained(options)
    heads = chosen_heads(options.heads, trained.config)
    context: dict[str, Any] = {**surroundings(torch.device("cpu")), "run": trained.config["name"], "step": trained.step}
    context |= {key: getattr(options, key) for key in ("batch", "batches", "draws")}
    context |= {"num_classes": len(trained.class_counts)}
    context |= {"own": statistics.mean(len(set(labels.tolist())) for _, labels in trained.batches)}
    print(", ".join(f"{key} {value}" for key, value in context.items()))
    print(f"{'head':17}{'rate':>5}{'corrected':>11}{'classes':>9}" + "".join(f"{name:>9}" for name in COLUMNS))
    rows: list[dict[str, Any]] = []
    for name, head_options in heads:
        rows += (measured := measure(trained, name, head_options, options.rates, options.draws))
        for row in measured:
            values = "".join(f"{row[column]:9.3f}" for column in COLUMNS)
            print(
                f"{name:17}{row['rate']:5g}{'yes' if row['corrected'] else '':>11}{row['classes']:9.0f}{values}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**context, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.out}")
    return 0


def load_trained(options: argparse.Namespace) -> Trained:
    """Reads a checkpoint and embeds the first batches of the run's first epoch, in eval mode and float32."""
    folder: Path = options.run / "checkpoints"
    path = folder / options.checkpoint if options.checkpoint else latest_checkpoint(folder)
    if path is None:
        raise SystemExit(f"{folder}: no complete checkpoint; name the folder of a run that train.py has saved")
    progress = read_manifest(path)["progress"]
    backbone_state, classifier = empty_tensors(path, "backbone/"), empty_tensors(path, "fc/")
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is what is meant
    load_checkpoint(path, {**backbone_state, **classifier})
    classifier = {name.removeprefix("fc/"): value for name, value in classifier.items()}
    config: dict[str, Any] = progress["config"]
    source = open_source(options.rec or config["rec"])
    if source.num_classes != classifier["weight"].shape[0]:
        raise SystemExit(f"{path}: of {classifier['weight'].shape[0]} classes, the data has {source.num_classes}")
    sizes = {"embedding_size": config["embedding_size"], "in_channels": source.image_format.channels}
    backbone = build_backbone(config["network"], **sizes, **config.get("network_options", {})).eval()
    backbone.load_state_dict({name.removeprefix("backbone/"): value for name, value in backbone_state.items()})
    stream = build_loader(
        source, seed=config["seed"], batch_size=options.batch, rank=0, world_size=1, first_batch=0,
        last_batch=options.batches, num_workers=0, augmentation=config["augmentation"],
    )  # fmt: skip
    with torch.no_grad():
        batches = [(backbone(to_model_input(b.images, source.image_format)).double(), b.labels) for b in stream]
    return Trained(config, progress["steps_done"], classifier, batches, torch.from_numpy(source.class_counts()))


def chosen_heads(text: str | None, config: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names and options: those given, else the run's own for its head and the defaults for others."""
    heads: list[tuple[str, dict[str, Any]]] = []
    for item in (text or config["head"]).split(","):
        name, *pairs = item.split(":")
        given = {key: ast.literal_eval(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        heads.append((name, {**(config["head_options"] if name == config["head"] else {}), **given}))
        build_head(name, **heads[-1][1])  # a wrong name or option stops here, not after the heads before it
    return heads


def measure(
    trained: Trained, name: str, head_options: dict[str, Any], rates: Sequence[float], draws: int
) -> list[dict[str, Any]]:
    """One row per rate and correction, all of them on the same batches, noise and prototypes."""
    full = layer(trained, name, head_options, 1.0, False)
    settings = [(rate, corrected) for rate in rates for corrected in (False, True) if rate < 1 or not corrected]
    layers = {setting: layer(trained, name, head_options, *setting) for setting in settings}
    tallies = {setting: Tally() for setting in settings}
    for embeddings, labels in trained.batches:
        is_outside = torch.ones(full.num_classes, dtype=torch.bool).index_fill_(0, labels, False)
        for spreads in (spreads for tally in tallies.values() for spreads in tally.spreads.values()):
            spreads.append(Spread())
        for draw in range(draws):
            reference = one_pass(full, embeddings, labels, trained.step, draw)
            for setting, fc in layers.items():
                tallies[setting].add(one_pass(fc, embeddings, labels, trained.step, draw), reference, is_outside)
    return [
        {"head": name, "head_options": head_options, "rate": rate, "corrected": corrected, **tally.row()}
        for (rate, corrected), tally in tallies.items()
    ]


def layer(trained: Trained, name: str, head_options: dict[str, Any], rate: float, corrected: bool) -> PartialFC:
    """The classification layer on the checkpoint's prototypes; buffers of the head stay as they are (eval mode)."""
    num_classes, *_, embedding_size = trained.classifier["weight"].shape
    fc = PartialFC(
        build_head(name, **head_options), embedding_size, num_classes, sample_rate=rate, sampling_correction=corrected,
        class_counts=trained.class_counts,
    )  # fmt: skip
    stored = trained.classifier if name == trained.config["head"] else {"weight": trained.classifier["weight"]}
    fc.load_sharded_state_dict({**fc.sharded_state_dict(), **stored})
    return fc.double().eval()


def one_pass(fc: PartialFC, embeddings: Tensor, labels: Tensor, step: int, draw: int) -> Pass:
    """Loss and gradients; the draw of negatives depends on `draw` alone, as does the noise of heads that use it."""
    leaf = embeddings.clone().requires_grad_()
    (loss := fc(leaf, labels, step=step, micro_step=draw)).backward()
    gradient = torch.zeros_like(fc.weight)
    for waiting in fc.row_gradients():
        gradient[slice(None) if waiting.rows is None else waiting.rows] += waiting.gradient
    fc.clear_gradients()
    stats, own = fc.last_statistics, leaf.grad
    return Pass(loss.item(), stats, gradient, own, len(fc.sampled_classes))  # type: ignore[arg-type]  # both are set


if __name__ == "__main__":
    sys.exit(main())
