"""The parts of a run that train.py, `--check` and tools share: preflight, building, one step, state. No loop here."""
