"""Shared plumbing: formats, images, configuration, ranks. Imports nothing of ours and holds no formulas."""
