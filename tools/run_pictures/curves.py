"""Curves: what one or several runs logged over their epochs, and the logits of a run's head over the angle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from losses import HEADS
from tools.head_pictures.recipes import made
from tools.head_pictures.samples import DEGREES, NORM, extra_logit, has_own, parent_logit, samples
from tools.run_pictures.view import COLOURS, PictureError, RunView, figure_of, save

PANELS = (
    ("train", "loss", None, "training loss", 1.0),
    ("classification", "error", "test", "test error in %", 100.0),
    ("classification", "class_margin", "test", "class margin in degrees", 1.0),
    ("classification", "prototype_norm_ratio", "test", "largest by smallest prototype norm", 1.0),
)


def draw_training(views: Sequence[RunView], path: Path) -> None:
    """Loss, test error, class margin and ratio of prototype norms over the epochs, all runs in each panel."""
    figure = figure_of((11.0, 7.5))
    for place, (kind, name, dataset, title, factor) in enumerate(PANELS, start=1):
        axes = figure.add_subplot(2, 2, place)
        for index, view in enumerate(views):
            epochs, values = view.curve(kind, name, dataset)
            style = "-" if index < len(COLOURS) else "--"
            axes.plot(epochs, factor * values, style, color=COLOURS[index % len(COLOURS)], label=view.label, lw=1.4)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if name in ("error", "loss") and any((line.get_ydata() > 0).any() for line in axes.lines):  # type: ignore[operator, union-attr]
            axes.set_yscale("log")
    if len(views) > 1:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    else:
        figure.suptitle(views[0].label, fontsize=11)
    save(figure, path)


def draw_head(view: RunView, path: Path) -> None:
    """The target's logit over the angle with the run's options, without margin beside it, and a virtual class's.

    Raises:
        PictureError: a head that is not registered here.
    """
    name, options = str(view.config.get("head")), view.config.get("head_options") or {}
    if name not in HEADS:
        raise PictureError(f"{view.folder}: head {name!r} is not among those here, so its logits are not known")
    head = made(name, **options)
    figure = figure_of((6.4, 4.4))
    axes = figure.add_subplot()
    if has_own(head, "loss") and not has_own(head, "target_logit") and not hasattr(head, "extra_logit"):
        axes.plot(DEGREES, head.loss(samples(head)).detach(), color=COLOURS[0], label=name)
        axes.set_ylabel("loss, all other classes at 90°")
    else:
        curves = [("target", head.target_logit(samples(head)), "-"), ("without margin", parent_logit(head), "--")]
        if hasattr(head, "extra_logit"):
            curves.append(("virtual class", extra_logit(head), "-"))
        for index, (label, values, style) in enumerate(curves):
            axes.plot(DEGREES, torch.as_tensor(values).detach(), style, color=COLOURS[index], label=label)
        axes.set_ylabel("logit")
    free = "" if head.is_on_cosines else f"; embedding norm {NORM:g}, prototype norm 1"
    told = ", ".join(f"{key}={value}" for key, value in options.items())
    axes.set_title(f"{view.label}: {name}({told}){free}", fontsize=10)
    axes.set(xlabel="angle between embedding and own prototype, degrees", xlim=(0, 180))
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)
