"""Tests of the losses room: the engine, PartialFC, its optimizers and every head against the oracles."""
