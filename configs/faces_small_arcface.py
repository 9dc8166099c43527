"""ArcFace on the small face set; 394 classes want a smaller scale and margin than 64 and 0.5."""

from configs.faces_small_base import config

config.head = "arcface"
config.head_options = {"scale": 30.0, "margin": 0.3}
