"""CIFAR-10 as the published code of SV-Softmax trains it: 100 epochs of 128, cosine, shifted and mirrored images.

Data: the batches of the binary or the Python archive in data/cifar10. The net has the stem of ImageNet, as there
(network_options.stem="cifar" is the usual one for such small images); the embedding is its pooled map.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.task = "classification"
config.rec = "cifar10:data/cifar10"
config.augmentation = "pad_crop_flip"
config.verbose = 0

config.network = "resnet18"
config.network_options = {"stem": "imagenet"}
config.embedding_size = 512
config.precision = "auto"

config.batch_size = 128
config.lr = 0.1
config.lr_schedule = "cosine"
config.num_epoch = 100
config.clip_norm = 0.0
config.frequent = 50
