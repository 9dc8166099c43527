"""CosFace on the small face set; a small set and net want a smaller scale and margin than 64 and 0.4."""

from configs.faces_small_base import config

config.head = "cosface"
config.head_options = {"scale": 30.0, "margin": 0.2}
