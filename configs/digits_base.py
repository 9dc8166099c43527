"""The handwritten digits that scikit-learn brings along: a classification that runs anywhere, in seconds.

1,442 images to train on and 355 to test on, 8 x 8 pixels enlarged to 28 x 28, so that the nets for MNIST fit.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.task = "classification"
config.rec = "digits"
config.verbose = 0  # a test at the end of each epoch
config.augmentation = "none"
config.num_workers = 0

config.network = "digits"
config.embedding_size = 64

config.batch_size = 64
config.lr = 0.05
config.lr_schedule = "cosine"
config.num_epoch = 10
