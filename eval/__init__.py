"""Embeddings -> numbers, plots and reports; knows backbones and utils, never losses, data sources or training."""
