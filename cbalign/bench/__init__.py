"""Reproducible benchmarks: the training step, the transport solvers and the input pipeline."""
