"""Suites: lists of runs that answer one question together, how they are run and what they came to."""
