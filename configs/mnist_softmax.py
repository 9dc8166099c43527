"""MNIST with softmax; see mnist_base."""

from configs.mnist_base import config

config.head = "softmax"
