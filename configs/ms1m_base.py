"""MS1M-RetinaFace ("MS1M-V3"): 93,431 identities, 5,179,510 images, on 8 ranks.

Data: `ms1m-retinaface-t1` of insightface's dataset list, unpacked in data/: train.rec, train.idx, property and the
verification sets lfw.bin, cfp_fp.bin, agedb_30.bin.
Schedule: arcface_torch's configs/ms1mv3_r50.py (insightface 7fadd42): 8 x 128 images a step, SGD at 0.1 lowered along a
straight line to 0 over 20 epochs, weight decay 5e-4. On another number of ranks scale lr with the global batch; its
configs/ms1mv3_r50_onegpu.py has 0.02 for one.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ("lfw", "cfp_fp", "agedb_30")

config.network = "r50"
config.precision = "auto"  # bf16, or fp16 on GPUs older than Ampere
config.num_workers = 8

config.batch_size = 128
config.lr = 0.1
config.lr_power = 1.0
config.num_epoch = 20
