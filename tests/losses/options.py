"""Which options every head is compared with; no tests. A head that is missing here is compared at its defaults."""

from __future__ import annotations

from typing import Any

from losses import HEADS, Head, build_head
from tests.losses.problems import ByClass, Case

# one name a class: an alias builds the same head
NAMES = sorted({head: name for name, head in reversed(HEADS.items())}.values())

# Beside the defaults, which are always tried: a small scale, so that no sample is saturated, and every branch.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "softmax": [{"class_weights": ByClass(0.2, 3.0)}],
    "normface": [{"scale": 8.0}, {"scale": 8.0, "class_weights": ByClass(3.0, 0.2)}],
    "hinge": [{"margin": 0.0}, {"margin": 20.0}],
    "soft_margin": [{"margin": 0.0}, {"margin": 4.0}],
    "cosface": [{"scale": 8.0, "margin": 0.2}, {"margin": 0.0}],
    "arcface": [
        {"scale": 8.0, "margin": 1.2},
        {"margin": 0.0},
        {"scale": 8.0, "gradient": "straight_through"},
    ],
    "combined": [
        {"scale": 16.0, "m1": 1.0, "m2": 0.3, "m3": 0.2},
        {"scale": 8.0, "m1": 1.35, "m2": 0.4, "m3": 0.1},
        {"scale": 8.0, "m1": 3.0, "m2": 0.5},  # passes pi and two pi
        {"scale": 8.0, "m1": 2.0, "m2": 0.5, "m3": 0.1, "gradient": "straight_through"},
    ],
    "sphereface": [
        {"scale": 8.0, "margin": 3.3},
        {"margin": 1.0},
        {"scale": 8.0, "gradient": "straight_through"},
    ],
    "subcenter_arcface": [
        {"scale": 8.0, "sub_centers": 1},
        {"scale": 8.0, "margin": 1.2, "sub_centers": 2},
        {"scale": 8.0, "sub_centers": 3},
    ],
    "virtual_softmax": [
        {"virtual_logit_cap": 50.0},
        {"virtual_logit_cap": None},
        {"virtual_logit_cap": 2.0},
        {"normalized": True},
        {"normalized": True, "scale": 8.0, "virtual_logit_cap": 5.0},
    ],
    "svsoftmax": [
        {"virtual_logit_cap": None},
        {"margin": 0.35, "virtual_logit_cap": 50.0},
        {"margin": 0.9, "virtual_logit_cap": 2.0},
        {"margin": 1.0, "virtual_logit_cap": None},
        {"margin": 0.0, "virtual_logit_cap": None},
        {"normalized": True, "scale": 8.0},
        {"normalized": True, "margin": 0.8, "virtual_logit_cap": 15.0},
    ],
    # base, gamma and power such that the margin's share differs between the steps of STEPS
    "lsoftmax": [
        {"margin": 1, "base": 2.0},
        {"margin": 2, "base": 2.0, "gamma": 0.2, "power": 1.0, "minimum": 0.1},
        {"margin": 3, "base": 0.0, "minimum": 0.0},
        {"margin": 4, "base": 5.0, "gamma": 1.0, "power": 2.0, "minimum": 0.0},
    ],
    "asoftmax": [
        {"margin": 1, "base": 2.0},
        {"margin": 2, "base": 0.0, "minimum": 0.0},
        {"margin": 3, "base": 2.0, "gamma": 0.2, "power": 1.0, "minimum": 0.1},
        {"margin": 4, "base": 5.0, "gamma": 1.0, "power": 2.0, "minimum": 0.0},
    ],
    "lm_softmax": [{"scale": 8.0}, {"scale": 8.0, "class_weights": ByClass(0.2, 3.0)}],
    "gm_softmax": [
        {"scale": 8.0, "alpha1": 1.2, "alpha2": 0.7, "beta1": 0.1, "beta2": -0.2},
        {"scale": 8.0, "alpha1": 0.5, "alpha2": 0.5},
        {
            "scale": 8.0,
            "alpha1": ByClass(0.5, 2.0),
            "alpha2": ByClass(0.2, 0.5),
            "beta1": ByClass(-0.2, 0.2),
            "beta2": ByClass(0.3, -0.1),
        },
    ],
    "ldam": [{"scale": 8.0}, {"scale": 8.0, "max_margin": 1.1}],
    "focal": [{"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 5.0}],
    "so_softmax": [{"lambda_p": 6.0, "lambda_n": 4.0, "margin": 0.1}, {"lambda_n": 20.0, "margin": 0.0}],
    "wsoftmax": [{"alpha": 0.0}, {"alpha": 0.4}, {"alpha": 5.0}],
    "uniface": [
        {"scale": 8.0},
        {"scale": 8.0, "bias": 1.5, "learn_bias": False},
        {"scale": 8.0, "margin": 0.0, "bias": -2.0},
    ],
    "adaface": [
        {"scale": 8.0},
        {"scale": 8.0, "h": 1.0, "momentum": 0.5},
        {"scale": 8.0, "margin": 0.8, "h": 1.5, "momentum": 1.0},  # z is clipped on both sides
    ],
    # the problem's embeddings are 0.3 to 15 long: some inside the bounds, some beyond either
    "magface": [
        {"scale": 8.0, "lower_norm": 2.0, "upper_norm": 6.0},
        {"scale": 8.0, "lower_norm": 1.0, "upper_norm": 20.0, "lower_margin": 0.1, "upper_margin": 1.5},
        {"scale": 8.0, "norm_weight": 0.0},
    ],
    "elasticface_arc": [{"scale": 8.0, "std": 0.3}, {"scale": 8.0, "margin": 1.2, "std": 0.5}, {"std": 0.0}],
    "elasticface_cos": [{"scale": 8.0, "std": 0.3}, {"scale": 8.0, "margin": 0.0, "std": 0.5}, {"std": 0.0}],
    "curricularface": [
        {"scale": 8.0},
        {"scale": 8.0, "margin": 1.2, "momentum": 0.5},
        {"scale": 8.0, "margin": 0.0, "momentum": 1.0},
    ],
    "mv_arc": [
        {"scale": 8.0},
        {"scale": 8.0, "hard_weight": 1.0},
        {"scale": 8.0, "margin": 1.2, "hard_weight": 1.3},
    ],
    "mv_am": [
        {"scale": 8.0},
        {"scale": 8.0, "hard_weight": 1.0},
        {"scale": 8.0, "margin": 0.6, "hard_weight": 1.3},
    ],
    "circle": [{"scale": 8.0}, {"scale": 8.0, "margin": 0.5}, {"scale": 8.0, "margin": 0.0}],
}
STEPS = (0, 6, 40_000)  # of annealing: its start, its middle, its end


def options_of(name: str) -> list[dict[str, Any]]:
    """The defaults, then everything in OPTIONS."""
    return [{}, *OPTIONS.get(name, [])]


def cosine_options_of(name: str) -> list[dict[str, Any]]:
    """Those with which the head works on cosines, so that an interclass filter means something."""
    return [
        options for options in options_of(name) if build_head(name, **Case(name, options).head_options).is_on_cosines
    ]


WARMED_HEADS = [name for name in NAMES if HEADS[name].supports_margin_warmup]
COSINE_HEADS = [name for name in NAMES if cosine_options_of(name)]
RUNNING_HEADS = [name for name in NAMES if HEADS[name].update is not Head.update]
