"""Losses: arrays in, {name: scalar} out; no parameters, no state, no flax."""
