"""Compiles the full-size step ahead of time for a given topology: memory, FLOPs, collectives and cost."""
