"""SV-Softmax on CASIA-WebFace."""

from configs.casia_base import config

config.head = "svsoftmax"
config.head_options = {"margin": 0.6, "virtual_logit_cap": 15.0}
