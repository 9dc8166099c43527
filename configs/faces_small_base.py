"""A face set that two CPU cores can train: what the heads are compared under.

Data: a folder of images per identity, 112 x 112 and aligned, packed by
    python -m tools.records pack IMAGES data/faces_small
and data/lfw.bin (or data/lfw with images and pairs.txt) to verify on.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/faces_small"
config.val_dir = "data"
config.val_targets = ("lfw",)
config.verbose = 0  # at the end of each epoch

config.network = "small"
config.batch_size = 64
config.lr = 0.1
config.num_epoch = 6
