"""Trained weights -> files for other programs: graph, precision, checks, metadata. The command line is next door."""
