"""SV-Softmax on the small face set. The extra logit grows over the whole run: docs/LOG.md tells what it costs early."""

from configs.faces_small_base import config

config.head = "svsoftmax"
config.head_options = {"margin": 0.6, "virtual_logit_cap": 15.0}
config.margin_warmup_epochs = 6.0
