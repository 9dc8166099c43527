"""Read before every config of this folder: what all runs here share and docs/config.md does not already say."""

from easydict import EasyDict as edict  # noqa: N813

config = edict()

# No entry as shipped. What a machine wants for all its runs goes here:
#   config.num_workers = 8
#   config.val_dir = "/data/verification"
