"""CUB-200-2011 from a face net or any other run of this project: new classes, the old backbone, a tenth of the rate.

Data: the folder CUB_200_2011 of the archive in data. init_from names the run, here that of configs/ms1m_arcface.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.task = "classification"
config.rec = "cub200:data/CUB_200_2011"
config.verbose = 0

config.network = "r50"
config.embedding_size = 512
config.init_from = "work_dirs/ms1m_arcface"
config.head = "svsoftmax"

config.batch_size = 64
config.lr = 0.01
config.head_lr = 0.1
config.lr_schedule = "cosine"
config.num_epoch = 50
