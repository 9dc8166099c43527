"""The digits with svsoftmax; see digits_base."""

from configs.digits_base import config

config.head = "svsoftmax"
