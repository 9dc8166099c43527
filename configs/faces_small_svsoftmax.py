"""SV-Softmax on the small face set."""

from configs.faces_small_base import config

config.head = "svsoftmax"
config.head_options = {"margin": 0.6, "virtual_logit_cap": 15.0}
