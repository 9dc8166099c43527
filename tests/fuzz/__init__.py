"""Hostile files against every parser: `python -m tests.fuzz`; test_*.py hold a short run and named findings."""
