"""ArcFace on CASIA-WebFace."""

from configs.casia_base import config

config.head = "arcface"
config.head_options = {"scale": 64.0, "margin": 0.5}
