"""What the picture of each head shows. Numbers come from the heads' own code; a head without a recipe is drawn too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from losses import Head, build_head
from tools.head_pictures.canvas import Curve, Picture
from tools.head_pictures.samples import (
    DEGREES,
    NORM,
    NUM_CLASSES,
    extra_logit,
    has_own,
    non_target,
    non_targets_beside,
    parent_logit,
    prepared,
    samples,
)

_TARGET_DEGREES = 45.0  # of the own class, where a curve shows another one's logit
_FREE = f"‖x‖ = {NORM:g}, ‖w‖ = 1"
_OTHERS = f"{NUM_CLASSES - 1} others at 90°"
Recipe = Callable[[str], Picture]


def picture_of(name: str) -> Picture:
    """The picture of a registered head, at its defaults."""
    return RECIPES.get(name, general)(name)


def general(name: str) -> Picture:
    """Any head: its target logit, and beside it whatever else it says of its own: extra logit, non-targets, loss."""
    head = made(name)
    if has_own(head, "loss") and not has_own(head, "target_logit") and not hasattr(head, "extra_logit"):
        return _losses(name, {name: head}, head)
    curves = [Curve("target", head.target_logit(samples(head)))]
    if not torch.equal(curves[0].values, parent_logit(head)):
        curves.append(Curve("no margin", parent_logit(head), is_parent=True))
    if hasattr(head, "extra_logit"):
        curves.append(Curve("virtual class", extra_logit(head)))
    if has_own(head, "non_target"):
        curves.append(Curve(_beside(), non_targets_beside(head, _TARGET_DEGREES)))
    return Picture(name, subtitle_of(name, head), "logit", curves)


def made(name: str, **options: Any) -> Head:
    """The head with these options, ready to be asked."""
    return prepared(build_head(name, **options))


def subtitle_of(name: str, head: Head, **changed: Any) -> str:
    """Options that the picture is drawn with, and the norms where the head leaves them free."""
    options = {key: value.default for key, value in inspect.signature(type(head)).parameters.items()} | changed
    words = [f"{key}={value:g}" for key, value in options.items() if type(value) in (int, float)]
    words += [] if head.normalize_embeddings else [_FREE if not head.normalize_prototypes else f"‖x‖ = {NORM:g}"]
    return ", ".join(words)


def _beside() -> str:
    return f"non-target, own class at {_TARGET_DEGREES:g}°"


def _losses(name: str, heads: dict[str, Head], shown: Head, parent: tuple[str, Tensor] | None = None) -> Picture:
    """Losses instead of logits, for heads that are more than a target logit."""
    curves = [Curve(label, head.loss(samples(head))) for label, head in heads.items()]
    label, values = parent or ("cross entropy", Head.loss(shown, samples(shown)))
    curves.append(Curve(label, values, is_parent=True))
    return Picture(name, f"{subtitle_of(name, shown)}; {_OTHERS}", "loss", curves)


def _softmax(name: str) -> Picture:
    head = made(name)
    curves = [
        Curve(f"target, ‖x‖ = {norm:g}", head.target_logit(samples(head, norm=norm))) for norm in (20.0, NORM, 5.0)
    ]
    return Picture(name, "‖w‖ = 1", "logit", curves)


def _normface(name: str) -> Picture:
    curves = []
    for scale in (64.0, 32.0, 16.0):
        head = made(name, scale=scale)
        curves.append(Curve(f"target, scale={scale:g}", head.target_logit(samples(head))))
    return Picture(name, "no margin", "logit", curves)


def _hinge(name: str) -> Picture:
    head = made(name)
    values = []
    for made_head in (head, made(name, margin=0.0)):
        stats = samples(made_head)
        values.append(made_head.loss(replace(stats, hardest=torch.full_like(stats.target, NORM / 2))))
    curves = [Curve("loss", values[0]), Curve("margin=0", values[1], is_parent=True)]
    return Picture(name, f"{subtitle_of(name, head)}; hardest class at 60°", "loss", curves)


def _focal(name: str) -> Picture:
    heads = {f"gamma={gamma:g}": made(name, gamma=gamma) for gamma in (2.0, 0.5)}
    return replace(_losses(name, heads, made(name)), limits=(-0.1, 3.0))


def _lm_softmax(name: str) -> Picture:
    head, parent = made(name), made("normface")
    scaled = parent.loss(samples(parent)) / parent.scale
    return _losses(name, {"lm_softmax": head}, head, ("normface / scale", scaled))


def _gm_softmax(name: str) -> Picture:
    head = made(name)
    heads = {
        "alpha2=0.5": made(name, alpha2=0.5),
        "beta1=beta2=-0.4 (CosFace)": made(name, beta1=-0.4, beta2=-0.4),
    }
    picture = _losses(name, heads, head, ("defaults (NormFace)", head.loss(samples(head))))
    return replace(picture, subtitle=f"scale=64; {_OTHERS}")


def _uniface(name: str) -> Picture:
    head, parent = made(name), made(name, margin=0.0)
    curves = []
    for label, one, is_parent in (("target's term", head, False), ("margin=0", parent, True)):
        stats = samples(one)
        alone = replace(stats, log_sum=torch.zeros_like(stats.target))
        curves.append(Curve(label, one.loss(alone), is_parent=is_parent))
    curves.append(Curve("a non-target's term", non_target(head, samples(head), DEGREES)))
    return Picture(name, f"{subtitle_of(name, head)}, bias=ln(10 · {NUM_CLASSES})", "loss", curves)


def _svsoftmax(name: str) -> Picture:
    head = made(name)
    target, synthetic = head.target_logit(samples(head)), extra_logit(head)
    curves = [
        Curve("target", target),
        Curve("virtual class, sample right", synthetic),
        Curve("virtual class, sample wrong", extra_logit(head, is_right=False)),
    ]
    gap = target - synthetic
    before = int((gap > 0).nonzero()[-1])  # from there on the synthetic logit is the larger one
    crossing = before + float(gap[before] / (gap[before] - gap[before + 1]))
    return Picture(name, subtitle_of(name, head), "logit", curves, [(crossing, f"{crossing:.1f}°")])


def _annealed(name: str) -> Picture:
    curves = []
    for softening in (0.0, 5.0):
        head = made(name, base=softening, power=0.0, minimum=0.0)
        curves.append(Curve(f"target, λ = {softening:g}", head.target_logit(samples(head))))
    head = made(name, base=1000.0, power=0.0, minimum=0.0)
    curves.append(Curve("λ = 1000 (step 0)", head.target_logit(samples(head)), is_parent=True))
    norms = _FREE if not head.normalize_prototypes else f"‖x‖ = {NORM:g}"
    return Picture(name, f"margin=4, {norms}", "logit", curves)


def _combined(name: str) -> Picture:
    curves = []
    for m1, m2, m3 in ((1.0, 0.3, 0.2), (1.5, 0.0, 0.0), (1.2, 0.4, 0.1)):
        head = made(name, m1=m1, m2=m2, m3=m3)
        curves.append(Curve(f"m1={m1:g}, m2={m2:g}, m3={m3:g}", head.target_logit(samples(head))))
    head = made(name)
    curves.append(Curve("defaults: no margin", head.target_logit(samples(head)), is_parent=True))
    return Picture(name, "scale=64", "logit", curves)


def _by_quality(name: str) -> Picture:
    head: Any = made(name)
    mean, std = 50.0, 10.0  # as if trained: all three norms lie within the head's clamp
    head.norm_mean.fill_(mean)
    head.norm_std.fill_(std)
    curves = []
    for quality in (-1, 0, 1):
        stats = samples(head, norm=mean + quality * (std + 1e-3) / head.h)
        curves.append(Curve(f"target, z = {quality}", head.target_logit(stats)))
    curves.append(Curve("no margin", parent_logit(head), is_parent=True))
    return Picture(name, subtitle_of(name, head), "logit", curves)


def _by_norm(name: str) -> Picture:
    head: Any = made(name)
    norms = (head.lower_norm, (head.lower_norm + head.upper_norm) / 2, head.upper_norm)
    curves = [Curve(f"target, ‖x‖ = {norm:g}", head.target_logit(samples(head, norm=norm))) for norm in norms]
    curves.append(Curve("no margin", parent_logit(head), is_parent=True))
    return Picture(name, f"scale=64, margins {head.lower_margin:g} to {head.upper_margin:g}", "logit", curves)


def _band(name: str) -> Picture:
    head = made(name)
    low, middle, high = (head.target_logit(samples(head, noise=noise)) for noise in (-2.0, 0.0, 2.0))
    curves = [
        Curve("target, mean margin", middle),
        Curve("± 2 std", low, upto=high),
        Curve("no margin", parent_logit(head), is_parent=True),
    ]
    return Picture(name, subtitle_of(name, head), "logit", curves)


def _curricular(name: str) -> Picture:
    early: Any = made(name)
    late: Any = made(name)
    late.mean_cosine.fill_(0.6)
    curves = [
        Curve("target", early.target_logit(samples(early))),
        Curve(f"{_beside()}, τ = 0", non_targets_beside(early, _TARGET_DEGREES)),
        Curve("the same, τ = 0.6", non_targets_beside(late, _TARGET_DEGREES)),
        Curve("no margin", parent_logit(early), is_parent=True),
    ]
    return Picture(name, subtitle_of(name, early), "logit", curves)


def _ldam(name: str) -> Picture:
    counts = torch.full((NUM_CLASSES,), 100)
    shown = (10, 100, 1000)
    counts[: len(shown)] = torch.tensor(shown)
    head = prepared(build_head(name), counts)
    curves = [
        Curve(f"target, {count} images", head.target_logit(samples(head, label=label)))
        for label, count in enumerate(shown)
    ]
    curves.append(Curve("no margin", parent_logit(head), is_parent=True))
    return Picture(name, subtitle_of(name, head), "logit", curves)


RECIPES: dict[str, Recipe] = {
    "softmax": _softmax,
    "normface": _normface,
    "hinge": _hinge,
    "focal": _focal,
    "lm_softmax": _lm_softmax,
    "gm_softmax": _gm_softmax,
    "uniface": _uniface,
    "svsoftmax": _svsoftmax,
    "lsoftmax": _annealed,
    "asoftmax": _annealed,
    "combined": _combined,
    "adaface": _by_quality,
    "magface": _by_norm,
    "elasticface_arc": _band,
    "elasticface_cos": _band,
    "curricularface": _curricular,
    "circle": lambda name: replace(general(name), limits=(-300.0, 280.0)),
    "ldam": _ldam,
}
