"""Command lines, one per file, run as python -m tools.NAME. Nothing of the training loop imports them."""
