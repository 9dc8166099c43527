"""CASIA-WebFace: 10,572 identities, about 0.49 million images, on 4 ranks.

Data: `faces_webface_112x112` of insightface's dataset list, unpacked in data/: train.rec, train.idx, property and the
verification sets lfw.bin, cfp_fp.bin, agedb_30.bin.
Schedule: batch, rate and length of ArcFace (Deng et al., CVPR 2019, section 3.1: 512 images a step, SGD at 0.1, 32,000
steps, weight decay 5e-4); the rate falls polynomially, where the paper divides it by 10 twice.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/faces_webface_112x112"
config.num_classes = 10572
config.val_targets = ("lfw", "cfp_fp", "agedb_30")

config.network = "r50"
config.precision = "auto"  # bf16, or fp16 on GPUs older than Ampere
config.num_workers = 8

config.batch_size = 128
config.lr = 0.1
config.num_epoch = 34
