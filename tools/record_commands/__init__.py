"""What `python -m tools.records` can do, one command per file; each has `add` (its options) and `run` (its work)."""
