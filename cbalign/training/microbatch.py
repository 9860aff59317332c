"""Micro-batching: processes a device's rows in parts, so that only one part's activations are in memory.

The result is exact if a row's loss does not depend on other rows' gradients. This holds here: student queries are
compared with teacher keys only, which carry no gradient, and hard negatives come from the row's own group, which is
never split across parts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def split(rows, parts: int):
    """Splits the leading axis: leaves [b, ...] -> [parts, b / parts, ...]; each part holds consecutive rows.

    Raises:
      ValueError: the number of rows is not a multiple of `parts`.
    """

    def cut(x):
        if x.shape[0] % parts:
            raise ValueError(f"{x.shape[0]} rows do not divide into {parts} micro-batches")
        return x.reshape(parts, -1, *x.shape[1:])

    return jax.tree.map(cut, rows)


def by_parts(function: Callable, rows, *, microbatches: int):
    """Applies a row-wise function to one part after another.

    Args:
      function: tree of [b, ...] -> tree of [b, ...].
      rows: tree of [b, ...].
      microbatches: number of parts (static).

    Returns:
      The same as `function(rows)`.
    """
    if microbatches == 1:
        return function(rows)
    results = jax.lax.map(function, split(rows, microbatches))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)


def value_and_gradient(loss: Callable, params, rows, *, microbatches: int):
    """Value and gradient of the mean of `loss(params, part)` over parts, accumulated one part at a time.

    Args:
      loss: (params, tree of [b / microbatches, ...]) -> (scalar, tree of scalars), each a mean over its rows.
      params: tree to differentiate with respect to; gradients are accumulated in its dtypes.
      rows: tree of [b, ...].
      microbatches: number of parts (static).

    Returns:
      ((mean scalar, tree of mean scalars), gradient), as `jax.value_and_grad(loss, has_aux=True)(params, rows)`.
    """
    function = jax.value_and_grad(loss, has_aux=True)
    if microbatches == 1:
        return function(params, rows)
    parts = split(rows, microbatches)
    shapes = jax.eval_shape(function, params, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, function(params, part)), None

    sums, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / microbatches, sums)
