"""Augmentation of images: random views, colour distortions and the pixel arithmetic below them."""
