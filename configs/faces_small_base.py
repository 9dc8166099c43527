"""A face set that two CPU cores can train: what the heads are compared under.

Data: a folder of images per identity, 112 x 112 and aligned, packed by
    python -m tools.records pack IMAGES data/faces_small --fill-borders
and data/lfw.bin (or data/lfw with images and pairs.txt) to verify on.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/faces_small"
config.val_dir = "data"
config.val_targets = ("lfw",)
config.verbose = 100_000  # only before the first and after the last step: verifying takes as long as an epoch

config.network = "small"
config.embedding_size = 256
config.precision = "auto"  # bf16 on CPUs that have it: 1.8 times as many images a second as fp32

config.batch_size = 64  # on 2 ranks: 128 images a step
config.lr = 0.1
config.warmup_epoch = 0.5
config.num_epoch = 6
config.frequent = 50
