"""The codebook: K learnable code vectors in the joint space of images and texts (method, section 1)."""

import flax.linen as nn
import jax.numpy as jnp


def l2_normalise(x, *, epsilon: float = 1e-12):
    """Rows of x [..., d] scaled to unit length in float32; all-zero rows stay finite."""
    x = x.astype(jnp.float32)
    # Clamping the square rather than the norm makes the gradient of an all-zero row 0 instead of NaN.
    return x * (jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), epsilon**2) ** -0.5)


class Codebook(nn.Module):
    """C in R^{K x d}, normalised row by row wherever it is used.

    Attributes:
      num_codes: K.
      width: d.
    """

    num_codes: int
    width: int

    @nn.compact
    def __call__(self):
        """Returns the codes, float32 [K, d], each of unit length."""
        codes = self.param("codes", nn.initializers.normal(1.0 / self.width**0.5), (self.num_codes, self.width))
        return l2_normalise(codes)
