"""Breaks heads and engine one line at a time and runs the tests on each: `python -m tests.mutation`."""
