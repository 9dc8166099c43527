"""Command lines, one per file, run as python -m tools.NAME. Nothing of the training loop imports them."""

from utils.interrupts import say_interrupted_while_importing

say_interrupted_while_importing()
