"""MNIST as embeddings of two numbers (embedding_size=3: three), a quarter of LeNets++: the pictures of the papers."""

from configs.mnist_base import config

config.head = "softmax"
config.network = "lenet_plus"
config.network_options = {"width": 0.25}
config.embedding_size = 2
config.lr_milestones = (3.0, 4.0)
config.num_epoch = 5
