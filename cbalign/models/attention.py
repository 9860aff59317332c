"""Multi-head attention, layer norm and feed-forward shared by the image and the text encoders.

The precision policy is defined here. Parameters are float32. `dtype` is the dtype of the encoders' matrix products,
activations and residuals; accumulation is in float32 either way. Softmax, norms and everything after the encoders
(projections, heads, losses, transport) are float32, and a product of float32 operands runs in full float32 on every
accelerator: by default, TPUs round the operands to bfloat16 and GPUs to TF32.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Flax collections through which an explanation reads a module's attention: where `ATTENTION_SHIFT` holds "weights" for
# the module, they are added to its attention probabilities, whose sum is kept in `ATTENTION`. With zeros nothing
# changes, and the gradient with respect to them is that of the probabilities.
ATTENTION, ATTENTION_SHIFT = "attention", "attention_shift"


def precision_of(dtype) -> jax.lax.Precision | None:
    """The `precision` of a product of operands of this dtype: float32 operands are never rounded."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None


def per_block(remat: bool, module: nn.Module, call, *inputs):
    """`call(module, *inputs)`; with `remat` its activations are recomputed in the backward pass.

    Only the block's inputs are stored then, at a third more arithmetic in the blocks. Values and parameter names do not
    change; `call` closes over every argument that is not an array.
    """
    return (nn.remat(call) if remat else call)(module, *inputs)


def gelu(x):
    """Exact (erf) GELU, as in BERT and DeiT; `nn.gelu` alone would be the tanh approximation."""
    return nn.gelu(x, approximate=False)


def dense(features: int, *, init_std: float, dtype: Any, name: str | None = None) -> nn.Dense:
    """A linear layer with truncated-normal weights of standard deviation `init_std` and zero bias."""
    return nn.Dense(
        features,
        dtype=dtype,
        precision=precision_of(dtype),
        kernel_init=nn.initializers.truncated_normal(init_std),
        bias_init=nn.initializers.zeros_init(),
        name=name,
    )


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with `heads` heads over the last axis.

    Attributes:
      heads: number of heads; must divide the width of the queries.
      dropout: dropout rate of the attention probabilities.
      init_std: standard deviation of the initial weights.
      dtype: dtype of the matmuls; the softmax runs in float32.
      key_value: the key and value projections, where they are shared with another attention module; None for
        projections of its own.
    """

    heads: int
    dropout: float = 0.0
    init_std: float = 0.02
    dtype: Any = jnp.float32
    key_value: Any = None

    @nn.compact
    def __call__(self, inputs, context=None, mask=None, *, deterministic: bool = True):
        """Attends from `inputs` to `context` (self-attention where there is none).

        Args:
          inputs: [b, q, width].
          context: [b, k, any width] keys and values, or None.
          mask: bool, broadcastable to [b, heads, q, k]; False positions are not attended to.
          deterministic: no dropout.

        Returns:
          [b, q, width] in `dtype`.
        """
        width = inputs.shape[-1]
        context = inputs if context is None else context

        def layer(name):
            return dense(width, init_std=self.init_std, dtype=self.dtype, name=name)

        def project(x, layer):
            x = layer(x)
            return x.reshape(*x.shape[:-1], self.heads, width // self.heads)

        key_layer, value_layer = self.key_value or (layer("key"), layer("value"))
        query, key, value = project(inputs, layer("query")), project(context, key_layer), project(context, value_layer)
        precision = precision_of(self.dtype)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision)
        scores = scores / jnp.sqrt(width // self.heads).astype(self.dtype)
        scores = scores.astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        if self.has_variable(ATTENTION_SHIFT, "weights"):
            weights = weights + self.get_variable(ATTENTION_SHIFT, "weights")
            self.sow(ATTENTION, "weights", weights)
        weights = nn.Dropout(self.dropout)(weights, deterministic=deterministic)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision).reshape(inputs.shape)
        return dense(width, init_std=self.init_std, dtype=self.dtype, name="output")(mixed)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    hidden: int
    init_std: float = 0.02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        """x: [..., width] -> [..., width]."""
        hidden = gelu(dense(self.hidden, init_std=self.init_std, dtype=self.dtype, name="intermediate")(x))
        return dense(x.shape[-1], init_std=self.init_std, dtype=self.dtype, name="output")(hidden)


def layer_norm(epsilon: float, name: str | None = None) -> nn.LayerNorm:
    """Layer norm computed in float32 whatever the compute dtype."""
    # Flax's fast variance E[x^2] - E[x]^2 loses precision where the mean is large; the references do not use it.
    return nn.LayerNorm(epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)
