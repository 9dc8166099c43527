"""The digits with softmax; see digits_base."""

from configs.digits_base import config

config.head = "softmax"
