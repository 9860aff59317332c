"""Suites: lists of runs that answer one question together, the engine that runs what is missing, and their tables."""
