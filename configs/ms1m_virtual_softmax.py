"""Virtual Softmax on MS1M-RetinaFace."""

from configs.ms1m_base import config

config.head = "virtual_softmax"
config.head_options = {"virtual_logit_cap": 15.0}
