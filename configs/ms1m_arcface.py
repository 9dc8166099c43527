"""ArcFace on MS1M-RetinaFace, as arcface_torch's configs/ms1mv3_r50.py."""

from configs.ms1m_base import config

config.head = "arcface"
config.head_options = {"scale": 64.0, "margin": 0.5}
