"""MNIST on two CPU cores: the topology of L-Softmax at a quarter of the width, one short schedule for all heads.

What docs/classification.md compares heads under; the head and its options come from the command line.
"""

from configs.mnist_base import config

config.head = "softmax"
config.network = "lsoftmax_mnist_narrow"
config.network_options = {"width": 0.25}
config.embedding_size = 64
config.lr_milestones = (3.0, 4.0)
config.num_epoch = 5
