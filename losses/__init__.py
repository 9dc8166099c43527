"""Margin heads, their engine and PartialFC. To add a head: one class in a file of its family, one line in HEADS."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from losses.adaptive import AdaFace, ElasticFaceArc, ElasticFaceCos, MagFace
from losses.angular import ArcFace, Combined, CosFace, SphereFace, SubCenterArcFace
from losses.comparison import SOSoftmax, UniFace, WSoftmax
from losses.head import ClassStatistics, Head, SampleStatistics, softmax_loss
from losses.imbalance import LDAM, Focal
from losses.largest_margin import GMSoftmax, LMSoftmax
from losses.lsoftmax import ASoftmax, LSoftmax
from losses.mining import MVAM, Circle, CurricularFace, MVArc
from losses.partial_fc import PartialFC
from losses.regularizers import REGULARIZERS, Regularizer
from losses.softmax import Hinge, NormFace, SoftMargin, Softmax
from losses.virtual import SVSoftmax, VirtualSoftmax

HEADS: dict[str, type[Head]] = {
    "softmax": Softmax,
    "ce": Softmax,
    "hinge": Hinge,
    "soft_margin": SoftMargin,
    "focal": Focal,
    "virtual_softmax": VirtualSoftmax,
    "svsoftmax": SVSoftmax,
    "lsoftmax": LSoftmax,
    "asoftmax": ASoftmax,
    "wsoftmax": WSoftmax,
    "normface": NormFace,
    "cosface": CosFace,
    "arcface": ArcFace,
    "combined": Combined,
    "sphereface": SphereFace,
    "subcenter_arcface": SubCenterArcFace,
    "adaface": AdaFace,
    "magface": MagFace,
    "elasticface_arc": ElasticFaceArc,
    "elasticface_cos": ElasticFaceCos,
    "curricularface": CurricularFace,
    "mv_arc": MVArc,
    "mv_am": MVAM,
    "circle": Circle,
    "lm_softmax": LMSoftmax,
    "gm_softmax": GMSoftmax,
    "ldam": LDAM,
    "so_softmax": SOSoftmax,
    "uniface": UniFace,
}


def build_head(name: str, **options: Any) -> Head:
    """Builds a head by its registry name.

    Args:
        name: a key of HEADS.
        **options: the head's own arguments.

    Raises:
        ValueError: unknown name or argument; the message lists the right ones.
    """
    if name not in HEADS:
        close = difflib.get_close_matches(name, HEADS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown head {name!r}.{hint} There are: {', '.join(sorted(HEADS))}")
    allowed = [key for key in inspect.signature(HEADS[name]).parameters if key not in ("args", "kwargs")]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"head {name!r} has no option {', '.join(unknown)}; it takes: {', '.join(allowed) or 'none'}")
    return HEADS[name](**options)


__all__ = [
    "HEADS",
    "REGULARIZERS",
    "ClassStatistics",
    "Head",
    "PartialFC",
    "Regularizer",
    "SampleStatistics",
    "build_head",
    "softmax_loss",
]
