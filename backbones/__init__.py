"""The room that turns images into embeddings, without labels, margins or ranks; only names are gathered here."""

from backbones.recognition import infer_backbone
from backbones.registry import BACKBONES, BackboneInfo, backbone_info, build_backbone
from backbones.weights import WeightsError, load_weights, strip_prefixes

__all__ = [
    "BACKBONES",
    "BackboneInfo",
    "WeightsError",
    "backbone_info",
    "build_backbone",
    "infer_backbone",
    "load_weights",
    "strip_prefixes",
]
