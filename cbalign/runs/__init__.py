"""A run and its folder: starting it, training, evaluating, and what it writes."""
