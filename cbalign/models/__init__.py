"""Flax modules: pure functions of (parameters, inputs)."""
