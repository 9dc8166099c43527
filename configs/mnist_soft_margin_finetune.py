"""The second stage of SM-Softmax: from the weights and prototypes of configs/mnist_softmax, at its last rate."""

from configs.mnist_base import config

config.head = "soft_margin"
config.init_from = "work_dirs/mnist_softmax"
config.init_head_from = "work_dirs/mnist_softmax"
config.lr = 0.01
config.lr_milestones = (5.0,)
config.num_epoch = 10
