"""ArcFace on the small face set."""

from configs.faces_small_base import config

config.head = "arcface"
config.head_options = {"scale": 64.0, "margin": 0.5}
