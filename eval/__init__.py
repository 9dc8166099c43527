"""Embeddings -> numbers, plots and reports; knows backbones and utils, never losses, data sources or training."""

from utils.interrupts import say_interrupted_while_importing

say_interrupted_while_importing()
