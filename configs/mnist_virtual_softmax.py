"""MNIST with virtual_softmax; see mnist_base."""

from configs.mnist_base import config

config.head = "virtual_softmax"
