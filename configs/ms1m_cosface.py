"""CosFace on MS1M-RetinaFace, with arcface_torch's scale and margin."""

from configs.ms1m_base import config

config.head = "cosface"
config.head_options = {"scale": 64.0, "margin": 0.4}
