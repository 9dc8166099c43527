"""MNIST as the published code of L-Softmax trains it: net, batch, learning rates and length (30,000 steps of 128).

Data: the four idx files, gzipped or not, in data/mnist. Pixels become (x - 127.5) / 127.5; that code leaves out the
division, which the first batch norm undoes. Nothing is clipped there.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.task = "classification"
config.rec = "mnist:data/mnist"
config.normalization = "symmetric"
config.augmentation = "none"
config.verbose = 0

config.network = "lsoftmax_mnist"
config.embedding_size = 512

config.batch_size = 128
config.lr = 0.1
config.lr_schedule = "step"
config.lr_milestones = (10.7, 16.0, 21.4)  # steps 5,000, 7,500 and 10,000
config.num_epoch = 64
config.clip_norm = 0.0
config.frequent = 100
