"""Ranking, re-ranking, metrics and baselines; no training code."""
