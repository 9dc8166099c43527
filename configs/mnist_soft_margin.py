"""MNIST with soft_margin; see mnist_base."""

from configs.mnist_base import config

config.head = "soft_margin"
