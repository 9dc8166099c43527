"""SV-Softmax on MS1M-RetinaFace."""

from configs.ms1m_base import config

config.head = "svsoftmax"
config.head_options = {"margin": 0.6, "virtual_logit_cap": 15.0}
