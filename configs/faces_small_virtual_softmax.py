"""Virtual Softmax on the small face set, with the same slow growth of the extra logit as SV-Softmax."""

from configs.faces_small_base import config

config.head = "virtual_softmax"
config.head_options = {"virtual_logit_cap": 15.0}
config.margin_warmup_epochs = 6.0
