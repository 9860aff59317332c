"""Retrieval, re-ranking, metrics and baselines: arrays in, results out; no training code."""
