"""The full-size step compiled ahead of time for a named pod: memory, FLOPs, collectives."""
