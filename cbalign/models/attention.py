"""Multi-head attention, layer norm and feed-forward shared by the image and the text encoders.

The precision policy is defined here. Parameters are float32. `dtype` is the dtype of the encoders' matrix products,
activations and residuals; accumulation is in float32 either way. Softmax, norms and everything after the encoders
(projections, heads, losses, transport) are float32, and a product of float32 operands runs in full float32 on every
accelerator: by default, TPUs round the operands to bfloat16 and GPUs to TF32.
"""

import math
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
    """Exact GELU x/2 (1 + erf(x / sqrt 2)), as in BERT and DeiT; computed in float32, returned in the dtype of x.

    `nn.gelu(approximate=False)` takes erfc(-x / sqrt 2), which costs more and differs only in float32's rounding.
    """
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


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


def split_heads(x, heads: int):
    """[b, n, width] -> [b, n, heads, width / heads]."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with `heads` heads over the last axis.

    Attributes:
      width: of the queries and the output.
      heads: number of heads; must divide the width.
      dropout: dropout rate of the attention probabilities.
      init_std: standard deviation of the initial weights.
      dtype: dtype of the matmuls; the softmax runs in float32.
    """

    width: int
    heads: int
    dropout: float = 0.0
    init_std: float = 0.02
    dtype: Any = jnp.float32

    def setup(self):
        def layer():
            return dense(self.width, init_std=self.init_std, dtype=self.dtype)

        # Key and value have parameters only where they are called: not where every context is projected elsewhere.
        self.query, self.key, self.value, self.output = layer(), layer(), layer(), layer()
        self.drop = nn.Dropout(self.dropout)

    def keys_and_values(self, context):
        """context: [b, k, any width] -> (keys, values), each [b, k, heads, width / heads]."""
        return split_heads(self.key(context), self.heads), split_heads(self.value(context), self.heads)

    def __call__(self, inputs, context=None, mask=None, *, deterministic: bool = True):
        """Attends from `inputs` to `context` (self-attention where there is none).

        Args:
          inputs: [b, q, width].
          context: what is attended to: [b, k, any width], or its (keys, values), or None.
          mask: bool, broadcastable to [b, heads, q, k]; False positions are not attended to.
          deterministic: no dropout.

        Returns:
          [b, q, width] in `dtype`.
        """
        context = inputs if context is None else context
        query = split_heads(self.query(inputs), self.heads)
        key, value = context if isinstance(context, tuple) else self.keys_and_values(context)
        precision = precision_of(self.dtype)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision)
        scores = scores / jnp.sqrt(self.width // self.heads).astype(self.dtype)
        scores = scores.astype(jnp.float32)
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        if self.has_variable(ATTENTION_SHIFT, "weights"):
            weights = weights + self.get_variable(ATTENTION_SHIFT, "weights")
            self.sow(ATTENTION, "weights", weights)
        weights = self.drop(weights, deterministic=deterministic)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision).reshape(inputs.shape)
        return self.output(mixed)


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
