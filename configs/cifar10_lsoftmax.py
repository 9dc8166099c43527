"""CIFAR-10 with L-Softmax, m = 2, as in its published code: plain net, mean image subtracted, eased in for longer."""

from configs.cifar10_base import config

config.normalization = "mean_image"
config.network = "lsoftmax_cifar"
config.network_options = {}
config.head = "lsoftmax"
config.head_options = {"margin": 2, "power": 45.0, "gamma": 1e-5}
