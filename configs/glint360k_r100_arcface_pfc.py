"""ArcFace with partial FC on Glint360K: 360,232 identities, 17,091,657 images, on 8 ranks.

Data: `glint360k` of insightface's dataset list, unpacked in data/.
Schedule: arcface_torch's configs/glint360k_r100.py (insightface 7fadd42); a tenth of the classes in each step is the
rate that Partial FC (An et al., CVPR 2022) finds sufficient for it.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/glint360k"
config.num_classes = 360232
config.num_image = 17091657
config.val_targets = ("lfw", "cfp_fp", "agedb_30")

config.network = "r100"
config.precision = "auto"  # bf16, or fp16 on GPUs older than Ampere
config.num_workers = 8

config.head = "arcface"
config.head_options = {"scale": 64.0, "margin": 0.5}
config.sample_rate = 0.1

config.batch_size = 128
config.lr = 0.1
config.lr_power = 1.0
config.weight_decay = 1e-4
config.num_epoch = 20
