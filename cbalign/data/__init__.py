"""Records to batches. The only package that imports tensorflow."""
