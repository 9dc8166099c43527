"""The digits with virtual_softmax; see digits_base."""

from configs.digits_base import config

config.head = "virtual_softmax"
