"""cbalign: image-text alignment with a representation codebook (CODIS, CVPR 2022) in JAX and Flax."""

__version__ = "0.1.0"
