"""MNIST with L-Softmax, m = 4, eased in as in the authors' code; see mnist_base. head_options.margin: 1 .. 4."""

from configs.mnist_base import config

config.head = "lsoftmax"
config.head_options = {"margin": 4}
