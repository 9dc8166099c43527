"""Softmax on the small face set: the baseline."""

from configs.faces_small_base import config

config.head = "softmax"
