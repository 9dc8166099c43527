"""NormFace (softmax of scaled cosines, no margin) on the small face set."""

from configs.faces_small_base import config

config.head = "normface"
config.head_options = {"scale": 30.0}
