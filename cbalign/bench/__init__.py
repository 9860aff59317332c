"""Measurements that anyone can repeat: the training step, the transport solvers, the input pipeline."""
