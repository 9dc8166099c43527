"""The best head of the small face set, trained longer, with shifted images."""

from configs.faces_small_base import config

config.head = "cosface"
config.head_options = {"scale": 30.0, "margin": 0.2}
config.augmentation = "shift_flip"
config.num_epoch = 30
config.verbose = 745  # 5 epochs of the 19,191 faces on 2 ranks
