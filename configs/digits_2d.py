"""The digits as embeddings of two numbers, for pictures of how a head lays out its classes."""

from configs.digits_base import config

config.head = "softmax"
config.network = "lenet_plus"
config.network_options = {"width": 0.25}
config.embedding_size = 2
config.num_epoch = 20
