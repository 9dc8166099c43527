"""`make quickstart`: SV-Softmax on rendered faces, a few minutes on two CPU cores.

Data: python -m tools.synthetic_faces writes it to data/quickstart.
"""

from easydict import EasyDict as edict  # noqa: N813

config = edict()
config.rec = "data/quickstart"
config.val_targets = ("synthetic",)
config.verbose = 0  # at the end of each epoch

config.network = "tiny"
config.embedding_size = 256
config.precision = "auto"
config.head = "svsoftmax"
config.head_options = {"margin": 0.6, "virtual_logit_cap": 15.0}

config.batch_size = 64
config.lr = 0.1
config.warmup_epoch = 0.5
config.num_epoch = 6
config.checkpoint_interval = 100
