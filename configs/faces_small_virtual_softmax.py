"""Virtual Softmax on the small face set."""

from configs.faces_small_base import config

config.head = "virtual_softmax"
config.head_options = {"virtual_logit_cap": 15.0}
