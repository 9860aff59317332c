"""The codebook: K learnable code vectors in the joint space of images and texts (method, section 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def l2_normalise(x, *, epsilon: float = 1e-12):
    """Rows of x [..., d] scaled to unit length in float32; all-zero rows stay finite."""
    x = x.astype(jnp.float32)
    # Clamping the square rather than the norm makes the gradient of an all-zero row 0 instead of NaN.
    return x * (jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), epsilon**2) ** -0.5)


def sparsemax(x):
    """The point of the probability simplex nearest to each row of x, most of whose entries are 0.

    Martins & Astudillo, "From Softmax to Sparsemax", ICML 2016, algorithm 1: p = max(x - t, 0), where t makes the
    largest k entries sum to one, and k is as large as leaves all of them positive. The gradient is that of
    proposition 2: on the support S, that of x minus its mean over S; elsewhere 0.

    Args:
      x: [..., K] scores.

    Returns:
      float32 [..., K], rows sum to one.
    """
    x = x.astype(jnp.float32)
    # Adding a constant to a row changes nothing; small numbers round less.
    x = x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    # Sorting decides the support alone, which is piecewise constant: no gradient passes through it.
    ordered = jnp.flip(jnp.sort(jax.lax.stop_gradient(x), axis=-1), axis=-1)
    places = jnp.arange(1, x.shape[-1] + 1, dtype=jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    sums = jnp.cumsum(ordered, axis=-1)
    size = jnp.sum(1.0 + places * ordered > sums, axis=-1, keepdims=True)
    threshold = (jnp.take_along_axis(sums, size - 1, axis=-1) - 1.0) / size
    # Not by equality with an entry of `ordered`: the compiler may compute x again for this, and round otherwise.
    support = x > threshold
    excess = jnp.sum(jnp.where(support, x, 0.0), axis=-1, keepdims=True) - 1.0
    return jnp.maximum(x - excess / jnp.sum(support, axis=-1, keepdims=True), 0.0)


def code_mixture(z, codes, *, temperature):
    """The mixture of the codes that each z is assigned to, scaled to unit length: sparsemax(z C^T / T) C.

    After FDT (Chen et al., "Revisiting Multimodal Representation in Contrastive Learning: From Patch and Token
    Embeddings to Finite Discrete Tokens", CVPR 2023). There the score of a code is the largest over all patches or
    words; here it is that of the one projected vector, which all other losses of the codebook see.

    Args:
      z: [n, d], rows of unit length.
      codes: [K, d], rows of unit length.
      temperature: T; the lower, the fewer codes are mixed.

    Returns:
      float32 [n, d], rows of unit length; gradient reaches z and the codes.
    """
    precision = jax.lax.Precision.HIGHEST
    weights = sparsemax(jnp.matmul(z, codes.T, precision=precision) / temperature)
    return l2_normalise(jnp.matmul(weights, codes, precision=precision))


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
